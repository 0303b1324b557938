/* T5 tokenizer: prompt -> token ids, by SentencePiece itself (spec/flux.md 8.2). Open a tokenizer folder, encode any
 * number of prompts, close. Constant once open: any thread. What looks like a special token in a prompt ("</s>") is
 * plain text. */
#ifndef DYPE_T5_TOKENIZER_H
#define DYPE_T5_TOKENIZER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "status.h"

typedef struct t5_tokenizer t5_tokenizer;

/* dir: spiece.model, which must name an end and a padding piece. */
status t5_tokenizer_open(t5_tokenizer **out, const char *dir);
void t5_tokenizer_close(t5_tokenizer *t); /* accepts NULL */

/* One more than the largest id that encode can give: rows that the encoder's embedding must have. */
int32_t t5_tokenizer_n_ids(const t5_tokenizer *t);

/* ids: [max_length], tokens, eos, then pad; max_length at least 1. *n_used: ids before the padding. *lost: NULL, or
 * what did not fit (the text of the pieces that were cut, as SentencePiece normalised it), yours to free. */
status t5_tokenizer_encode(const t5_tokenizer *t, const char *text, int max_length, int32_t *ids, int *n_used,
                           char **lost);

#ifdef __cplusplus
}
#endif

#endif
