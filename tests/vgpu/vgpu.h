/* Virtual GPU: what replacements of other CUDA libraries (cuBLASLt, NCCL) need of this libcudart beside the CUDA calls.
 *
 * Device addresses are addresses only: nothing is mapped there, and host code that follows one is killed. A replacement
 * library asks for the bytes behind a range with vgpu_memory, inside the work that it has put on a stream. */
#ifndef VGPU_H
#define VGPU_H

#include <stddef.h>
#include <stdint.h>
#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What one call of a work function came to. */
typedef enum {
    VGPU_DONE,   /* finished: the stream goes on */
    VGPU_AGAIN,  /* nothing to do yet (a peer has not sent): call again later, other streams run meanwhile */
    VGPU_FAILED, /* told by vgpu_fault: the rest of the stream is dropped, the error is sticky */
} vgpu_progress;

typedef vgpu_progress (*vgpu_work)(void *arg);

enum {
    /* Somebody outside this process (or another host thread) waits for this work: it is done soon even when nobody here
     * waits for the stream. Without it, work is done as late as the CUDA calls allow. */
    VGPU_EXTERNAL = 1,
};

/* Puts work on a stream (0: the legacy default stream of the current device). It runs once everything before it on the
 * stream has, on some thread, with the stream's device current; never two calls of one work at a time, and no lock of
 * the virtual GPU is held. It must not block (return VGPU_AGAIN) and makes no CUDA call that waits. arg is given to
 * destroy (may be NULL) after the last call, or at once when this function fails. what (static text) names the work in
 * messages. Returns a sticky error of the device, cudaErrorInvalidResourceHandle for a stream that is not one, else 0.
 */
cudaError_t vgpu_enqueue(cudaStream_t stream, const char *what, vgpu_work work, void *arg, void (*destroy)(void *arg),
                         unsigned flags);

typedef enum {
    VGPU_ADDRESS = 0, /* the range must be allocated; its contents do not matter yet */
    VGPU_READ = 1,    /* and every byte must have been written before */
    VGPU_WRITE = 2,   /* every byte counts as written from here on */
} vgpu_access;

/* The bytes behind [address, address + n_bytes): NULL when the range is not one live allocation that the current device
 * may touch (its own, pinned host memory, a peer's with access enabled), or VGPU_READ finds bytes never written. Then
 * the fault has been reported with `what` (operation and operand, as "ncclSend: sendbuff"), and the caller returns
 * VGPU_FAILED. n_bytes 0 gives a pointer that is not NULL and checks nothing. Lent until the work returns. */
void *vgpu_memory(const void *address, size_t n_bytes, vgpu_access access, const char *what);
/* The same for n_rows rows of row_bytes, `pitch` bytes apart: what lies between the rows is neither checked nor marked.
 */
void *vgpu_memory_2d(const void *address, size_t row_bytes, size_t pitch, size_t n_rows, vgpu_access access,
                     const char *what);

/* Reports a fault in the words of printf and remembers it: with VGPU_ON_ERROR=abort the process ends here, else its
 * exit status will not be 0. error != cudaSuccess also becomes the sticky error of the current device. */
void vgpu_fault(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Handles that must be gone at the end of the process (a communicator, a cuBLASLt handle): those still open are
 * reported as leaks. close of a handle that is not open, or of another kind, is a fault; returns 0 when it was open. */
void vgpu_object_open(const char *kind, const void *handle);
int vgpu_object_close(const char *kind, const void *handle);
int vgpu_object_is_open(const char *kind, const void *handle); /* 1 or 0, no fault */

/* Device of a stream, -1 when it is not a stream. 0 is the default stream of the current device. */
int vgpu_stream_device(cudaStream_t stream);
/* VGPU_SEED: 0 is the plain order. Libraries draw their own permutations from it. */
uint64_t vgpu_seed(void);

#ifdef __cplusplus
}
#endif
#endif
