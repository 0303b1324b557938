/* A CLIP tokenizer's folder, and a prompt. Accepted: every id has a row, and what was cut is told as text. */
#include "fuzz.h"

#include <string.h>

#include "clip_tokenizer.h"

enum { LENGTH = 16 };

static void encode(const clip_tokenizer *t, const char *prompt)
{
    int32_t ids[LENGTH], again[LENGTH];
    int     n = 0;
    char   *lost = NULL, *lost_again = NULL;
    FUZZ_EXPECT(clip_tokenizer_encode(t, prompt, LENGTH, ids, &n, &lost) == ST_OK);
    FUZZ_EXPECT(n >= 2 && n <= LENGTH);
    for (int i = 0; i < LENGTH; i++) FUZZ_EXPECT(ids[i] >= 0 && ids[i] < clip_tokenizer_n_ids(t));
    FUZZ_EXPECT(clip_tokenizer_encode(t, prompt, LENGTH, again, &n, &lost_again) == ST_OK);
    FUZZ_EXPECT(memcmp(ids, again, sizeof(ids)) == 0 && (lost == NULL) == (lost_again == NULL));
    FUZZ_EXPECT(lost == NULL || n == LENGTH);
    free(lost);
    free(lost_again);
}

static status read_clip(const uint8_t *data, size_t n)
{
    clip_tokenizer *t = NULL;
    const status    st = clip_tokenizer_open(&t, fuzz_path("clip"));
    if (st != ST_OK) return st;
    FUZZ_EXPECT(clip_tokenizer_max_length(t) >= 1);
    encode(t, "A lighthouse, caf\xc3\xa9 and \xf0\x9f\x98\x80 42 times <|endoftext|>");
    char *prompt = strndup((const char *)data, n < 200 ? n : 200); /* any bytes: the input's own first */
    encode(t, prompt);
    free(prompt);
    clip_tokenizer_close(t);
    return ST_OK;
}

static void make_seeds(void)
{
    /* small words, each found by merging two before it */
    static const char vocab[] = "{\"!\":0,\"a\":1,\"b\":2,\"c\":3,\"a</w>\":4,\"b</w>\":5,\"c</w>\":6,\"ab\":7,\"ab</w>\":8,\"abc</w>\":9,"
                                "\"<|startoftext|>\":10,\"<|endoftext|>\":11}";
    static const char merges[] = "#version: 0.2\na b\na b</w>\nab c</w>\n";
    static const char config[] = "{\"model_max_length\":77,\"bos_token\":\"<|startoftext|>\",\"eos_token\":{\"content\":\"<|endoftext|>\","
                                 "\"lstrip\":false},\"unk_token\":\"<|endoftext|>\",\"pad_token\":\"!\",\"split_special_tokens\":false}";
    static const char decoder[] = "{\"added_tokens_decoder\":{\"11\":{\"content\":\"<|endoftext|>\",\"lstrip\":true,\"rstrip\":true,"
                                  "\"single_word\":true,\"special\":true}},\"model_max_length\":1000000000000000019884624838656}";
    static const char map[] = "{\"bos_token\":\"<|startoftext|>\",\"pad_token\":{\"content\":\"!\",\"rstrip\":true}}";
    static const char added[] = "{\"<new>\":12}";
    static const char fast[] = "{\"added_tokens\":[{\"id\":13,\"content\":\"<newer>\",\"rstrip\":true}]}";
    char              text[2048];
    int               n = snprintf(text, sizeof(text), "%s", vocab);
    n += snprintf(text + n, sizeof(text) - (size_t)n, "%c%s", FUZZ_SEPARATOR, merges);
    fuzz_seed(text, (size_t)n);
    const int all = n + snprintf(text + n, sizeof(text) - (size_t)n, "%c%s%c%s%c%s%c%s", FUZZ_SEPARATOR, config, FUZZ_SEPARATOR, map,
                                 FUZZ_SEPARATOR, added, FUZZ_SEPARATOR, fast);
    fuzz_seed(text, (size_t)all);
    n += snprintf(text + n, sizeof(text) - (size_t)n, "%c%s", FUZZ_SEPARATOR, decoder);
    fuzz_seed(text, (size_t)n);
}

const fuzz_target target = {.files = {"clip/vocab.json", "clip/merges.txt", "clip/tokenizer_config.json", "clip/special_tokens_map.json",
                                      "clip/added_tokens.json", "clip/tokenizer.json"},
                            .bad = ST_BAD_MODEL, .read = read_clip, .seeds = make_seeds};
