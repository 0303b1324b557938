/* Recovered: what is appended to a broken journal is read again, behind all that was read before. Refused: not one byte of
 * the file is touched. */
#include "fuzz.h"

#include <string.h>
#include <zlib.h>

#include "journal.h"

enum { HEAD = 12 };

static const char PATH[] = "a.journal";

static void expect_untouched(const uint8_t *data, size_t n)
{
    size_t   n_now = 0;
    uint8_t *now = fuzz_file(fuzz_path(PATH), &n_now);
    FUZZ_EXPECT(n_now == n && memcmp(now, data, n) == 0);
    free(now);
}

static status read_journal(const uint8_t *data, size_t n)
{
    journal *before = NULL, *j = NULL, *after = NULL;
    status   st = journal_read(&before, fuzz_path(PATH));
    expect_untouched(data, n);
    if (st != ST_OK) {
        FUZZ_EXPECT(journal_open(&j, fuzz_path(PATH)) == st);
        expect_untouched(data, n);
        return st;
    }
    const size_t n_records = journal_count(before), spoiled = journal_spoiled_bytes(before);
    FUZZ_EXPECT(spoiled + journal_torn_bytes(before) <= n);
    FUZZ_EXPECT(journal_open(&j, fuzz_path(PATH)) == ST_OK && journal_count(j) == n_records);
    FUZZ_EXPECT(journal_append(j, &(journal_record){.state = JOURNAL_LATENT, .output = "after.png"}) == ST_OK);
    journal_close(j);
    FUZZ_EXPECT(journal_read(&after, fuzz_path(PATH)) == ST_OK && journal_count(after) == n_records + 1);
    FUZZ_EXPECT(journal_torn_bytes(after) == 0 && journal_spoiled_bytes(after) == spoiled);
    FUZZ_EXPECT(journal_last(after, "after.png", JOURNAL_NONE) == journal_get(after, n_records));
    for (size_t i = 0; i < n_records; i++) {
        const journal_record *a = journal_get(before, i), *b = journal_get(after, i);
        FUZZ_EXPECT(a->state == b->state && a->step == b->step && strcmp(a->output, b->output) == 0 &&
                    strcmp(a->reason, b->reason) == 0 && strcmp(a->png_sha256, b->png_sha256) == 0);
        FUZZ_EXPECT(strlen(journal_state_name(a->state)) > 0);
    }
    journal_close(after);
    journal_close(before);
    return ST_OK;
}

static void make_seeds(void)
{
    journal *j = NULL;
    for (int s = JOURNAL_QUEUED; s < JOURNAL_N_STATES; s++) { /* each longer than the one before */
        FUZZ_EXPECT(journal_open(&j, fuzz_path(PATH)) == ST_OK);
        FUZZ_EXPECT(journal_append(j, &(journal_record){.state = (journal_state)s, .output = "a.png", .recipe_sha256 = "00ff",
                                                        .step = 3, .n_steps = 9, .reason = "a reason", .png_bytes = 7}) == ST_OK);
        journal_close(j);
        fuzz_seed_files();
    }
}

/* Every record that fits gets the checksum of what it holds. */
static size_t set_checksums(uint8_t *data, size_t n, size_t room)
{
    (void)room;
    for (size_t at = 0; at + HEAD <= n;) {
        const uint32_t length = (uint32_t)data[at + 4] | (uint32_t)data[at + 5] << 8 | (uint32_t)data[at + 6] << 16 |
                                (uint32_t)data[at + 7] << 24;
        if (memcmp(data + at, "DyJ1", 4) != 0 || length > n - at - HEAD) {
            at++;
            continue;
        }
        const uLong sum = crc32(crc32(0, data + at + 4, 4), data + at + HEAD, length);
        for (int i = 0; i < 4; i++) data[at + 8 + (size_t)i] = (uint8_t)(sum >> (8 * i));
        at += HEAD + length;
    }
    return n;
}

const fuzz_target target = {.files = {PATH}, .bad = ST_OUTPUT, .read = read_journal, .seeds = make_seeds, .repair = set_checksums};
