/* An entry of the embedding cache. Found: its rows have the checksum it tells. Not found: a warning has named the file, and
 * what is written anew is found. */
#include "fuzz.h"

#include <dirent.h>
#include <stdbool.h>
#include <string.h>

#include "embedding_cache.h"
#include "repair.h"
#include "safetensors.h"
#include "sha256.h"

enum { ROWS = 3, JOINT = 4, POOLED = 2, N_CLIP = 5 };

static const char          PATH[] = "entry";
static const int32_t       clip_ids[N_CLIP] = {1, 2, 3, 4, 5}, t5_ids[ROWS] = {7, 8, 9};
static const embedding_key key = {.clip_ids = clip_ids, .t5_ids = t5_ids, .n_clip = N_CLIP, .n_t5 = ROWS, .type = DT_F32};

static model            tiny = {.flux = {.joint_attention_dim = JOINT, .pooled_projection_dim = POOLED}};
static report          *speaker;
static embedding_cache *cache;
static char             name[256], warning[1 << 14];

static void on_forward(void *context, report_kind kind, const char *text)
{
    (void)context;
    if (kind == REPORT_WARNING) snprintf(warning, sizeof(warning), "%s", text);
}

static void write_entry(void)
{
    float                text[ROWS * JOINT], pooled[POOLED] = {0.25f, -1};
    const embedding_rows rows = {text, pooled};
    for (int i = 0; i < ROWS * JOINT; i++) text[i] = (float)i;
    FUZZ_EXPECT(embedding_cache_write(cache, &key, &rows) == ST_OK);
}

/* The name that the writer gives an entry is everything the key holds. */
static void open_cache(void)
{
    const embedding_cache_opts opts = {.dir = fuzz_dir(), .model = &tiny, .encoders_sha256 = "00ff", .device = "cpu (plain)"};
    embedding_cache_opts       o = opts;
    if (cache != NULL) return;
    FUZZ_EXPECT(report_open(&speaker, &(report_opts){.forward = on_forward}) == ST_OK);
    o.report = speaker;
    FUZZ_EXPECT(embedding_cache_open(&cache, &o) == ST_OK);
    write_entry();
    DIR *folder = opendir(fuzz_path("embeddings"));
    FUZZ_EXPECT(folder != NULL);
    for (struct dirent *item = readdir(folder); item != NULL; item = readdir(folder))
        if (item->d_name[0] != '.') snprintf(name, sizeof(name), "embeddings/%.200s", item->d_name);
    closedir(folder);
    FUZZ_EXPECT(strlen(name) > SHA256_HEX);
}

static status read_entry(const uint8_t *data, size_t n)
{
    float                text[ROWS * JOINT], pooled[POOLED];
    const embedding_rows rows = {text, pooled};
    bool                 found = false;
    (void)data, (void)n;
    open_cache();
    FUZZ_EXPECT(rename(fuzz_path(PATH), fuzz_path(name)) == 0);
    warning[0] = '\0';
    FUZZ_EXPECT(embedding_cache_read(cache, &key, &rows, &found) == ST_OK);
    if (found) {
        safetensors *file = NULL;
        FUZZ_EXPECT(warning[0] == '\0' && safetensors_open(&file, fuzz_path(name), ST_OUTPUT) == ST_OK);
        FUZZ_EXPECT(memcmp(safetensors_find(file, "prompt_embeds")->data, text, sizeof(text)) == 0);
        FUZZ_EXPECT(memcmp(safetensors_find(file, "pooled_prompt_embeds")->data, pooled, sizeof(pooled)) == 0);
        safetensors_close(file);
        return ST_OK;
    }
    FUZZ_EXPECT(strstr(warning, fuzz_path(name)) != NULL && strstr(warning, "the prompt is encoded again") != NULL);
    write_entry();
    FUZZ_EXPECT(embedding_cache_read(cache, &key, &rows, &found) == ST_OK && found);
    return err_set(ST_OUTPUT, "%s: %s", fuzz_path(PATH), warning);
}

static void make_seeds(void)
{
    open_cache();
    FUZZ_EXPECT(rename(fuzz_path(name), fuzz_path(PATH)) == 0);
    fuzz_seed_files();
}

/* Of the prompt's rows, then the pooled ones. */
static void set_sum(json_t *header, const uint8_t *body, size_t n_body)
{
    char           hex[SHA256_HEX];
    size_t         n_text = 0, n_pooled = 0;
    sha256        *h = NULL;
    const uint8_t *text = repair_tensor(header, "prompt_embeds", body, n_body, &n_text);
    const uint8_t *pooled = repair_tensor(header, "pooled_prompt_embeds", body, n_body, &n_pooled);
    if (text == NULL || pooled == NULL || sha256_open(&h) != ST_OK) return;
    if (sha256_add(h, text, n_text) == ST_OK && sha256_add(h, pooled, n_pooled) == ST_OK && sha256_finish(h, hex) == ST_OK)
        repair_note(header, "sha256", hex);
}

static size_t set_checksum(uint8_t *data, size_t n, size_t room)
{
    return repair_header(data, n, room, set_sum);
}

const fuzz_target target = {.files = {PATH}, .bad = ST_OUTPUT, .read = read_entry, .seeds = make_seeds, .repair = set_checksum};
