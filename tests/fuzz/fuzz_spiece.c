/* A SentencePiece model. Accepted: it encodes any text to ids that have rows. */
#include "fuzz.h"

#include <string.h>

#include "t5_tokenizer.h"

enum { LENGTH = 64 };

static void encode(const t5_tokenizer *t, const char *prompt)
{
    int32_t ids[LENGTH];
    int     n = 0;
    char   *lost = NULL;
    FUZZ_EXPECT(t5_tokenizer_encode(t, prompt, LENGTH, ids, &n, &lost) == ST_OK);
    FUZZ_EXPECT(n >= 1 && n <= LENGTH && (lost == NULL || n == LENGTH));
    for (int i = 0; i < LENGTH; i++) FUZZ_EXPECT(ids[i] >= 0 && ids[i] < t5_tokenizer_n_ids(t));
    free(lost);
}

static status read_spiece(const uint8_t *data, size_t n)
{
    t5_tokenizer *t = NULL;
    const status  st = t5_tokenizer_open(&t, fuzz_path("t5"));
    if (st != ST_OK) return st;
    encode(t, "A lighthouse, caf\xc3\xa9 and \xf0\x9f\x98\x80 42 times </s>");
    encode(t, "");
    char *prompt = strndup((const char *)data + n / 2, n / 2 < 300 ? n / 2 : 300); /* any bytes: the input's own */
    encode(t, prompt);
    free(prompt);
    t5_tokenizer_close(t);
    return ST_OK;
}

static void make_seeds(void)
{
    size_t   n = 0;
    uint8_t *model = fuzz_file(TEST_DIR "/vectors/tiny_spiece.model", &n);
    fuzz_seed(model, n);
    free(model);
}

const fuzz_target target = {.files = {"t5/spiece.model"}, .bad = ST_BAD_MODEL, .read = read_spiece, .seeds = make_seeds};
