/* Sizes, the packing map, and the cut of the sequence over ranks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "geometry.h"

static void sizes_are_floored_to_whole_tokens(void **state)
{
    geometry g;
    (void)state;
    /* The paper's panorama: 4096 x 1365 is really 4096 x 1360, 256 x 85 tokens. */
    assert_int_equal(geometry_make(&g, 4096, 1365, 8), ST_OK);
    assert_int_equal(g.width, 4096);
    assert_int_equal(g.height, 1360);
    assert_int_equal(g.latent_w, 512);
    assert_int_equal(g.latent_h, 170);
    assert_int_equal(g.cols, 256);
    assert_int_equal(g.rows, 85);
    assert_int_equal(g.n_image, 256 * 85);
    assert_int_equal(geometry_make(&g, 24, 16, 2), ST_OK); /* a VAE of two levels */
    assert_int_equal(g.cols, 6);
    assert_int_equal(g.rows, 4);
}

static void impossible_sizes_are_refused(void **state)
{
    geometry g;
    (void)state;
    assert_int_equal(geometry_make(&g, 15, 64, 8), ST_BAD_JOB);
    assert_non_null(strstr(err_text(), "15 x 64"));
    assert_int_equal(geometry_make(&g, 64, 0, 8), ST_BAD_JOB);
    assert_int_equal(geometry_make(&g, -16, 64, 8), ST_BAD_JOB);
    assert_int_equal(geometry_make(&g, 1 << 20, 1 << 20, 8), ST_BAD_JOB); /* 2^32 tokens */
    assert_int_equal(geometry_make(&g, 1 << 19, 1 << 19, 8), ST_OK);
    /* Past 2^31 elements offsets are 64-bit: the last of 16 channels. */
    assert_true(geometry_latent_offset(&g, g.n_image - 1, 63) == ((int64_t)1 << 36) - 1);
    err_clear();
}

/* 2 channels of 4 x 6: token 1 is rows 0-1, columns 2-3; token 3 is rows 2-3, columns 0-1. */
static void packing_is_channel_row_column(void **state)
{
    geometry g;
    float latent[48];
    float packed[48];
    float back[48];
    (void)state;
    assert_int_equal(geometry_make(&g, 48, 32, 8), ST_OK);
    for (int i = 0; i < 48; i++)
        latent[i] = (float)i;
    geometry_pack(&g, 2, latent, 0, 6, packed);
    static const float token1[8] = {2, 3, 8, 9, 26, 27, 32, 33};
    static const float token3[8] = {12, 13, 18, 19, 36, 37, 42, 43};
    assert_memory_equal(packed + 8, token1, sizeof(token1));
    assert_memory_equal(packed + 24, token3, sizeof(token3));
    memset(back, 0, sizeof(back));
    for (int32_t first = 0; first < 6; first += 2)
        geometry_unpack(&g, 2, packed + first * 8, first, 2, back);
    assert_memory_equal(back, latent, sizeof(latent));
    for (int64_t i = 0; i < 48; i++) {
        int32_t token;
        int32_t feature;
        geometry_token_of(&g, i, &token, &feature);
        assert_true(geometry_latent_offset(&g, token, feature) == i);
    }
}

static void tiles_restart_at_the_first_image_row(void **state)
{
    row_range tile;
    (void)state;
    assert_int_equal(geometry_n_tiles(77, 100), 4);
    tile = geometry_tile(77, 100, 1);
    assert_int_equal(tile.first, 64);
    assert_int_equal(tile.n_text, 13);
    assert_int_equal(tile.n_image, 0);
    tile = geometry_tile(77, 100, 2);
    assert_int_equal(tile.first, 77);
    assert_int_equal(tile.n_text, 0);
    assert_int_equal(tile.n_image, 64);
    tile = geometry_tile(77, 100, 3);
    assert_int_equal(tile.first, 141);
    assert_int_equal(tile.count, 36);
}

/* FLUX at 1024 x 1024 with 512 text rows: 8 + 64 tiles over 5 ranks are 15, 15, 14, 14, 14. */
static void split_is_even_in_tiles(void **state)
{
    static const int32_t counts[] = {960, 960, 896, 896, 896};
    int32_t first = 0;
    (void)state;
    for (int32_t rank = 0; rank < 5; rank++) {
        row_range range = geometry_split(512, 4096, 5, rank);
        assert_int_equal(range.first, first);
        assert_int_equal(range.count, counts[rank]);
        assert_int_equal(range.n_text, rank == 0 ? 512 : 0);
        first += range.count;
    }
    assert_int_equal(geometry_first_token(geometry_split(512, 4096, 5, 0), 512), 0);
    assert_int_equal(geometry_first_token(geometry_split(512, 4096, 5, 1), 512), 448);
}

static void every_split_covers_the_sequence_once(void **state)
{
    static const int32_t sizes[][2] = {{512, 4096}, {77, 97}, {256, 1}, {1, 64}, {0, 65}, {64, 64}, {5, 7}, {0, 0}};
    (void)state;
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++)
        for (int32_t n_ranks = 1; n_ranks <= 9; n_ranks++) {
            int32_t n_text = sizes[s][0];
            int32_t n_image = sizes[s][1];
            int32_t first = 0;
            int32_t most = 0;
            int32_t least = INT32_MAX;
            int32_t texts = 0;
            for (int32_t rank = 0; rank < n_ranks; rank++) {
                row_range range = geometry_split(n_text, n_image, n_ranks, rank);
                assert_int_equal(range.first, first);
                assert_int_equal(range.count, range.n_text + range.n_image);
                assert_true(range.n_text >= 0 && range.n_image >= 0);
                /* Begins on a tile boundary of its own grid. */
                if (range.count > 0 && range.first < n_text) assert_int_equal(range.first % ROW_TILE, 0);
                if (range.n_image > 0) assert_int_equal(geometry_first_token(range, n_text) % ROW_TILE, 0);
                int32_t n_tiles = geometry_n_tiles(range.n_text, range.n_image);
                if (n_tiles > most) most = n_tiles;
                if (n_tiles < least) least = n_tiles;
                texts += range.n_text;
                first += range.count;
            }
            assert_int_equal(first, n_text + n_image);
            assert_int_equal(texts, n_text);
            assert_true(most - least <= 1);
        }
}

static void more_ranks_than_tiles_leaves_some_empty(void **state)
{
    (void)state;
    row_range range = geometry_split(5, 7, 8, 1);
    assert_int_equal(range.first, 5);
    assert_int_equal(range.n_image, 7);
    for (int32_t rank = 2; rank < 8; rank++) {
        range = geometry_split(5, 7, 8, rank);
        assert_int_equal(range.count, 0);
        assert_int_equal(range.first, 12);
    }
}

static void positions_are_row_and_column(void **state)
{
    geometry g;
    int32_t pos[5 * 3];
    (void)state;
    assert_int_equal(geometry_make(&g, 48, 32, 8), ST_OK); /* 3 columns */
    geometry_positions(&g, (row_range){.first = 3, .count = 5, .n_text = 1, .n_image = 4}, 4, pos);
    static const int32_t want[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 1, 0};
    assert_memory_equal(pos, want, sizeof(want));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_floored_to_whole_tokens),
        cmocka_unit_test(impossible_sizes_are_refused),
        cmocka_unit_test(packing_is_channel_row_column),
        cmocka_unit_test(tiles_restart_at_the_first_image_row),
        cmocka_unit_test(split_is_even_in_tiles),
        cmocka_unit_test(every_split_covers_the_sequence_once),
        cmocka_unit_test(more_ranks_than_tiles_leaves_some_empty),
        cmocka_unit_test(positions_are_row_and_column),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
