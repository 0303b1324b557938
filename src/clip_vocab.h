/* The files of a CLIP tokenizer folder: vocab.json, merges.txt, and of the rest what changes ids (special tokens, added
 * tokens, model_max_length). Read once, then constant. Missing optional files mean the defaults of transformers'
 * CLIPTokenizer; where two files disagree, the one that it believes counts. */
#ifndef DYPE_CLIP_VOCAB_H
#define DYPE_CLIP_VOCAB_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpe.h"
#include "status.h"

/* A token that is looked for in the prompt itself, before anything else is done to it. */
typedef struct {
    char   *text;        /* never empty */
    int32_t id;
    bool    lstrip;      /* eats the spaces on its left */
    bool    rstrip;
    bool    single_word; /* only counts with a space or nothing on either side */
    bool    special;     /* one of bos, eos, unk, pad ... */
} clip_added_token;

typedef struct {
    json_t           *tokens;  /* vocab.json: token -> id */
    const char      **names;   /* [n_ids], of an id; NULL for a hole */
    int32_t           n_ids;   /* one more than the largest id */
    int32_t           byte_ids[256], byte_end_ids[256]; /* of a byte inside and at the end of a piece; -1: none */
    bpe              *merges;  /* symbols are ids */
    clip_added_token *added;   /* [n_added], each text once */
    size_t            n_added;
    bool              split_special; /* typed added tokens are plain text */
    int32_t           bos, eos, unk, pad;
    int               max_length;
} clip_vocab;

enum { CLIP_MAX_LENGTH = 77 }; /* where the folder does not say */

status clip_vocab_open(clip_vocab **out, const char *dir);
void clip_vocab_close(clip_vocab *v); /* accepts NULL */

/* The id of a token: as an added one, else the vocabulary's, else unk's. */
int32_t clip_vocab_id(const clip_vocab *v, const char *token);

/* The char that stands for a byte in the names of tokens: itself where it can be printed, else one from U+0100 on. */
int32_t clip_vocab_char_of_byte(int byte);

#endif
