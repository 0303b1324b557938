/* A YAML document as a tree that knows where everything stood. Bounded: a hostile file costs a message,
 * not the memory. Aliases lend the node that they name (so the tree is a graph without cycles); they count in full
 * against the bound, so whoever walks the tree walks at most TREE_NODES_MAX nodes. */
#ifndef DYPE_YAML_TREE_H
#define DYPE_YAML_TREE_H

#include <stdbool.h>
#include <stddef.h>

#include "mistakes.h"

enum {
    TREE_NODES_MAX = 1000000, /* aliases written out */
    TREE_DEPTH_MAX = 32,
    TREE_ANCHORS_MAX = 1000
};

typedef enum tree_kind { TREE_SCALAR, TREE_SEQUENCE, TREE_MAPPING } tree_kind;

typedef struct tree_node tree_node;
struct tree_node {
    tree_kind kind;
    bool plain;        /* scalar without quotes: may be a number, a word, or nothing */
    int line, column;  /* from 1, in characters */
    char *text;        /* scalar: UTF-8 without a zero byte inside */
    tree_node **items; /* sequence: its items; mapping: key, value, key, value, ... */
    size_t n_items;
    size_t n_nodes; /* this one and all below, aliases written out */
};

typedef struct yaml_tree yaml_tree;

/* text: not zero-terminated, checked and without a byte order mark (yaml_text.h). ST_BAD_JOB when it is
 * not exactly one document within the bounds; the mistake is then in m and no message is set. */
status yaml_tree_read(yaml_tree **out, const char *text, size_t n_bytes, mistakes *m);
/* Lent until close. */
const tree_node *yaml_tree_root(const yaml_tree *tree);
void yaml_tree_close(yaml_tree *tree); /* accepts NULL */

/* `~`, `null` or an empty place: YAML's words for "nothing". */
bool tree_is_null(const tree_node *node);

enum { TREE_SHOWN_BYTES = 64 };
/* What was found, for a message: 12, "text in quotes...", nothing, a list, an empty mapping. Returns shown. */
const char *tree_show(const tree_node *node, char shown[TREE_SHOWN_BYTES]);

#endif
