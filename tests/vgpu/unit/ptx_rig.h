/* Runs a few PTX instructions on one warp, or a small kernel, through the interpreter: no nvcc, no fatbin. */
#ifndef VGPU_PTX_RIG_H
#define VGPU_PTX_RIG_H

#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <csetjmp>
#include <string>
#include <vector>
extern "C" {
#include <cmocka.h>
}

/* Operands of a row, the same in every lane:
 *   %q2 %q3 %q4 %q5 64 bits, %r2.. their low 32, %h2.. their low 16, %f2.. and %d2.. the same bits as floats.
 * The result is what `code` leaves in %q10 (64 bits), %r10, %f10, %d10, %h10 or %p1, as its letter says. */
struct PtxRow {
    char result; /* q r f d h p */
    const char *code;
    uint64_t a, b, c, want;
    uint64_t d = 0;
};

/* Runs the row with all lanes, then with every other lane; checks the lanes' results, and that idle lanes keep theirs.
 */
void ptx_check_rows(const PtxRow *rows, size_t n);

/* Kernel text without header; run on `grid` blocks of `block` threads with params (8 bytes each). Returns the message
 * of the fault, empty when there was none. */
std::string ptx_run(const std::string &kernel, unsigned grid, unsigned block, const std::vector<uint64_t> &params,
                    unsigned shared = 0);

/* Device memory; what is never uploaded was never written. */
uint64_t ptx_memory(size_t n_bytes);
void ptx_upload(uint64_t address, const void *from, size_t n_bytes);
void ptx_download(void *to, uint64_t address, size_t n_bytes);

/* Group teardown: frees all of it. */
int ptx_release(void **state);

#endif
