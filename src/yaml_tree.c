#include "yaml_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "yaml_text.h"

typedef struct anchor {
    char *name;
    tree_node *node;
} anchor;

struct yaml_tree {
    tree_node *root;
    tree_node **nodes; /* every node once: the owner */
    size_t n_nodes;
    size_t n_written_out; /* nodes, and for each alias all nodes of what it names */
    anchor *anchors;
    size_t n_anchors;
    tree_node *open[TREE_DEPTH_MAX]; /* collections still being read, outermost first */
    size_t n_open;
    mistakes *m; /* while reading */
};

/* One more pointer at the end of a list whose room is the power of two at or above n. */
static status append(tree_node ***list, size_t *n, tree_node *node)
{
    if ((*n & (*n - 1)) == 0) {
        size_t room = *n == 0 ? 1 : *n * 2;
        tree_node **larger = realloc(*list, room * sizeof(*larger));
        if (larger == NULL) return err_set(ST_NO_MEMORY, "yaml_tree: list of %zu nodes", room);
        *list = larger;
    }
    (*list)[(*n)++] = node;
    return ST_OK;
}

static status mistake_at(yaml_tree *tree, const yaml_event_t *event, const char *text)
{
    mistakes_add(tree->m, (int)event->start_mark.line + 1, (int)event->start_mark.column + 1, "%s", text);
    return ST_BAD_JOB;
}

/* The node becomes the next item of the innermost open collection, or the root. */
static status attach(yaml_tree *tree, tree_node *node, const yaml_event_t *event)
{
    tree->n_written_out += node->n_nodes;
    if (tree->n_written_out > TREE_NODES_MAX) {
        mistakes_add(tree->m, (int)event->start_mark.line + 1, (int)event->start_mark.column + 1,
                     "found more values than the %d that are allowed (aliases count as often as they are used)",
                     TREE_NODES_MAX);
        return ST_BAD_JOB;
    }
    if (tree->n_open == 0) {
        tree->root = node;
        return ST_OK;
    }
    tree_node *parent = tree->open[tree->n_open - 1];
    if (parent->kind == TREE_MAPPING && parent->n_items % 2 == 0 && node->kind != TREE_SCALAR)
        return mistake_at(tree, event, "found a list or a mapping where a key belongs; allowed: a word");
    return append(&parent->items, &parent->n_items, node);
}

static status remember_anchor(yaml_tree *tree, const yaml_char_t *name, tree_node *node, const yaml_event_t *event)
{
    if (name == NULL) return ST_OK;
    if (tree->anchors == NULL) tree->anchors = calloc(TREE_ANCHORS_MAX, sizeof(*tree->anchors));
    char *copy = strdup((const char *)name);
    if (tree->anchors == NULL || copy == NULL || tree->n_anchors == TREE_ANCHORS_MAX) {
        bool full = tree->anchors != NULL && copy != NULL;
        free(copy);
        if (!full) return err_set(ST_NO_MEMORY, "yaml_tree: %d anchors", TREE_ANCHORS_MAX);
        return mistake_at(tree, event, "found more than 1000 anchors; allowed: at most that many");
    }
    tree->anchors[tree->n_anchors++] = (anchor){copy, node};
    return ST_OK;
}

static status add_node(yaml_tree *tree, const yaml_event_t *event, tree_kind kind, const yaml_char_t *anchor_name,
                       const yaml_char_t *tag, tree_node **out)
{
    status st = ST_OK;
    /* "!" only says that a scalar is a string. */
    if (tag != NULL && strcmp((const char *)tag, "!") != 0)
        return mistake_at(tree, event, "found a YAML tag (!...); allowed: values without tags");
    tree_node *node = calloc(1, sizeof(*node));
    if (node == NULL) return err_set(ST_NO_MEMORY, "yaml_tree: %zu bytes", sizeof(*node));
    st = append(&tree->nodes, &tree->n_nodes, node);
    if (st != ST_OK) {
        free(node);
        return st;
    }
    node->kind = kind;
    node->line = (int)event->start_mark.line + 1;
    node->column = (int)event->start_mark.column + 1;
    node->n_nodes = 1;
    TRY(remember_anchor(tree, anchor_name, node, event));
    TRY(attach(tree, node, event));
    *out = node;
fail:
    return st;
}

static status add_scalar(yaml_tree *tree, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    size_t n_bytes = event->data.scalar.length;
    if (memchr(text, '\0', n_bytes) != NULL)
        return mistake_at(tree, event, "found a zero byte (\\0) in a text; allowed: any other character");
    tree_node *node = NULL;
    status st = add_node(tree, event, TREE_SCALAR, event->data.scalar.anchor, event->data.scalar.tag, &node);
    if (st != ST_OK) return st;
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    node->text = strndup(text, n_bytes);
    return node->text != NULL ? ST_OK : err_set(ST_NO_MEMORY, "yaml_tree: text of %zu bytes", n_bytes);
}

static status begin_collection(yaml_tree *tree, const yaml_event_t *event, tree_kind kind)
{
    if (tree->n_open == TREE_DEPTH_MAX)
        return mistake_at(tree, event, "found lists and mappings nested more than 32 deep; allowed: at most that deep");
    bool list = kind == TREE_SEQUENCE;
    const yaml_char_t *name = list ? event->data.sequence_start.anchor : event->data.mapping_start.anchor;
    const yaml_char_t *tag = list ? event->data.sequence_start.tag : event->data.mapping_start.tag;
    tree_node *node = NULL;
    status st = add_node(tree, event, kind, name, tag, &node);
    if (st == ST_OK) tree->open[tree->n_open++] = node;
    return st;
}

static void end_collection(yaml_tree *tree)
{
    tree_node *node = tree->open[--tree->n_open];
    for (size_t i = 0; i < node->n_items; i++)
        node->n_nodes += node->items[i]->n_nodes;
}

static status add_alias(yaml_tree *tree, const yaml_event_t *event)
{
    const char *name = (const char *)event->data.alias.anchor;
    tree_node *named = NULL;
    for (size_t i = tree->n_anchors; i-- > 0 && named == NULL;)
        if (strcmp(tree->anchors[i].name, name) == 0) named = tree->anchors[i].node;
    if (named == NULL) {
        mistakes_add(tree->m, (int)event->start_mark.line + 1, (int)event->start_mark.column + 1,
                     "found alias *%.40s; allowed: an alias of an anchor that stands above it (&%.40s)", name, name);
        return ST_BAD_JOB;
    }
    for (size_t i = 0; i < tree->n_open; i++)
        if (tree->open[i] == named)
            return mistake_at(tree, event, "found an alias inside the very thing that it names");
    return attach(tree, named, event);
}

static status add_event(yaml_tree *tree, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (tree->root == NULL) return ST_OK;
        return mistake_at(tree, event, "found a second document (---); allowed: one document per file");
    case YAML_SCALAR_EVENT:
        return add_scalar(tree, event);
    case YAML_SEQUENCE_START_EVENT:
        return begin_collection(tree, event, TREE_SEQUENCE);
    case YAML_MAPPING_START_EVENT:
        return begin_collection(tree, event, TREE_MAPPING);
    case YAML_ALIAS_EVENT:
        return add_alias(tree, event);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        end_collection(tree);
        return ST_OK;
    default:
        return ST_OK;
    }
}

/* Column, from 1, of a tab at the place of the error or in the indentation of its line; 0 when there is none. */
static int tab_column(const char *text, size_t n_bytes, const yaml_mark_t *mark)
{
    size_t i = 0;
    for (size_t line = 0; line < mark->line && i < n_bytes; i++)
        if (text[i] == '\n' || (text[i] == '\r' && (i + 1 == n_bytes || text[i + 1] != '\n'))) line++;
    bool indentation = true;
    for (int column = 1; i < n_bytes && text[i] != '\n' && text[i] != '\r'; column++) {
        if (text[i] == '\t' && (indentation || (size_t)column == mark->column + 1)) return column;
        if (text[i] != ' ') indentation = false;
        unsigned point = 0;
        size_t length = yaml_text_decode(text + i, n_bytes - i, &point);
        i += length > 0 ? length : 1;
    }
    return 0;
}

static status parser_failed(const yaml_parser_t *parser, const char *text, size_t n_bytes, mistakes *m)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return err_set(ST_NO_MEMORY, "yaml_tree: the YAML parser ran out of memory");
    const yaml_mark_t *at = &parser->problem_mark;
    int line = (int)at->line + 1, column = (int)at->column + 1;
    int tab = parser->error == YAML_SCANNER_ERROR ? tab_column(text, n_bytes, at) : 0;
    const char *problem = parser->problem != NULL ? parser->problem : "unreadable";
    const char *context = parser->context != NULL ? parser->context : "";
    const char *advice = "";
    if (strstr(context, "flow") != NULL)
        advice = " (a text with any of { } [ ] , needs quotes here)";
    else if (strstr(problem, "mapping values are not allowed") != NULL)
        advice = " (a text with a colon and a space in it needs quotes)";
    if (tab > 0)
        mistakes_add(m, line, tab, "found a tab; allowed: spaces (YAML forbids tabs for indentation)");
    else if (parser->context_mark.line + parser->context_mark.column > 0)
        mistakes_add(m, line, column, "not YAML: %s, %s that began at line %zu, column %zu%s", problem, context,
                     parser->context_mark.line + 1, parser->context_mark.column + 1, advice);
    else
        mistakes_add(m, line, column, "not YAML: %s%s", problem, advice);
    return ST_BAD_JOB;
}

status yaml_tree_read(yaml_tree **out, const char *text, size_t n_bytes, mistakes *m)
{
    status st = ST_OK;
    yaml_parser_t parser;
    bool at_end = false;
    yaml_tree *tree = calloc(1, sizeof(*tree));
    if (tree == NULL) return err_set(ST_NO_MEMORY, "yaml_tree: %zu bytes", sizeof(*tree));
    if (!yaml_parser_initialize(&parser)) {
        yaml_tree_close(tree);
        return err_set(ST_NO_MEMORY, "yaml_tree: no memory for the YAML parser");
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n_bytes);
    tree->m = m;
    while (!at_end) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) TRY(parser_failed(&parser, text, n_bytes, m));
        st = add_event(tree, &event);
        at_end = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
        if (st != ST_OK) goto fail;
    }
    if (tree->root == NULL || tree_is_null(tree->root)) {
        mistakes_add(m, 1, 1, "found an empty file; allowed: keys with values");
        st = ST_BAD_JOB;
        goto fail;
    }
    yaml_parser_delete(&parser);
    tree->m = NULL;
    *out = tree;
    return ST_OK;
fail:
    yaml_parser_delete(&parser);
    yaml_tree_close(tree);
    return st;
}

const tree_node *yaml_tree_root(const yaml_tree *tree)
{
    return tree->root;
}

void yaml_tree_close(yaml_tree *tree)
{
    if (tree == NULL) return;
    for (size_t i = 0; i < tree->n_anchors; i++)
        free(tree->anchors[i].name);
    free(tree->anchors);
    for (size_t i = 0; i < tree->n_nodes; i++) {
        free(tree->nodes[i]->text);
        free(tree->nodes[i]->items);
        free(tree->nodes[i]);
    }
    free(tree->nodes);
    free(tree);
}

bool tree_is_null(const tree_node *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    if (node->kind != TREE_SCALAR || !node->plain) return false;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        if (strcmp(node->text, words[i]) == 0) return true;
    return false;
}

/* The start of a text with control characters made visible. */
static size_t show_text(const char *text, char *shown, size_t room)
{
    static const char ellipsis[] = "...";
    size_t used = 0, n_bytes = strlen(text);
    for (size_t i = 0; i < n_bytes;) {
        unsigned point = 0;
        size_t length = yaml_text_decode(text + i, n_bytes - i, &point);
        if (length == 0) length = 1;
        if (used + length + sizeof(ellipsis) > room) {
            memcpy(shown + used, ellipsis, sizeof(ellipsis));
            return used + sizeof(ellipsis) - 1;
        }
        bool control = point < 0x20 || point == 0x7f;
        if (control)
            shown[used] = ' ';
        else
            memcpy(shown + used, text + i, length);
        used += length;
        i += length;
    }
    shown[used] = '\0';
    return used;
}

const char *tree_show(const tree_node *node, char shown[TREE_SHOWN_BYTES])
{
    if (node->kind != TREE_SCALAR) {
        snprintf(shown, TREE_SHOWN_BYTES, "%s %s", node->n_items > 0 ? "a" : "an empty",
                 node->kind == TREE_SEQUENCE ? "list" : "mapping");
    } else if (tree_is_null(node)) {
        strcpy(shown, "nothing");
    } else if (node->plain) {
        show_text(node->text, shown, TREE_SHOWN_BYTES);
    } else {
        shown[0] = '"';
        size_t used = show_text(node->text, shown + 1, TREE_SHOWN_BYTES - 2);
        strcpy(shown + 1 + used, "\"");
    }
    return shown;
}
