/* CLIP tokenizer: prompt -> token ids, equal to transformers' slow CLIPTokenizer without ftfy (spec/flux.md 8.1). Open
 * a tokenizer folder, encode any number of prompts, close. Constant once open: any thread. */
#ifndef DYPE_CLIP_TOKENIZER_H
#define DYPE_CLIP_TOKENIZER_H

#include <stdint.h>

#include "status.h"

typedef struct clip_tokenizer clip_tokenizer;

/* dir: vocab.json and merges.txt; tokenizer_config.json, special_tokens_map.json, added_tokens.json as far as there. */
status clip_tokenizer_open(clip_tokenizer **out, const char *dir);
void clip_tokenizer_close(clip_tokenizer *t); /* accepts NULL */

/* One more than the largest id that encode can give: rows that the text model's embedding must have. */
int32_t clip_tokenizer_n_ids(const clip_tokenizer *t);
/* model_max_length of the folder; 77 when it says nothing. */
int clip_tokenizer_max_length(const clip_tokenizer *t);

/* ids: [max_length], bos, tokens, eos, then pad; max_length at least 2. *n_used: ids before the padding. *lost: NULL,
 * or what did not fit (as tokens, turned to text again), yours to free. A malformed byte of text is dropped. */
status clip_tokenizer_encode(const clip_tokenizer *t, const char *text, int max_length, int32_t *ids, int *n_used,
                             char **lost);

#endif
