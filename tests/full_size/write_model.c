/* write_full_size_model DIR: a model folder of FLUX.1-dev's published shape (33 GB) with seeded random bf16 weights, for
 * measurements of memory and time; its pictures are noise. DIR must exist and be empty. */
#include <stdio.h>

#include "tiny_model.h"

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: write_full_size_model DIR\n");
        return ST_USAGE;
    }
    tiny_model m = tiny_model_get('g');
    status     st = tiny_model_write(&m, TINY_ALL, argv[1]);
    if (st != ST_OK) fprintf(stderr, "%s\n", err_text());
    return (int)st;
}
