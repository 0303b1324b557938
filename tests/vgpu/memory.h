/* All memory that kernels can name. Device addresses lie in a range where nothing is mapped; data and state (a byte per
 * byte: written or not) lie at a fixed distance. An address is never used twice, so freed memory stays known as freed.
 */
#ifndef VGPU_MEMORY_H
#define VGPU_MEMORY_H

#include <string>
#include "warp.h"

namespace vgpu
{

enum : u64 { DEVICE_SPAN = 1ull << 39, GRANULE = 1ull << 16 };
enum : int { MAX_DEVICES = 16 };

struct Allocation {
    u64 begin, n_bytes;
    int device;
    u64 number; /* counts allocations, for messages */
    bool live;
    bool is_symbol;   /* a __device__ or __constant__ variable: not the program's to free */
    std::string name; /* of the symbol, or how it was allocated */
};

cudaError_t memory_allocate(int device, u64 n_bytes, const char *name, bool is_symbol, u64 *address);
/* cudaErrorInvalidValue with a report when address is not the start of a live allocation. */
cudaError_t memory_free(u64 address, const char *call);
/* cudaDeviceReset: everything of the device is freed. */
void memory_release_device(int device);
u64 memory_used(int device);
/* Allocations, pinned memory still live; reports each, returns their number. */
int memory_report_leaks();

/* Live allocation that holds address, if the device may touch it (its own, a peer's, pinned host memory). */
bool memory_find(int device, u64 address, Range *range);
/* What lies at address, in words: "17 bytes past the end of allocation 3 (64 bytes at 0x...)". */
std::string memory_describe(u64 address);
bool memory_is_device(u64 address);
int memory_device_of(u64 address); /* -1: not a device address */
const Allocation *memory_allocation(u64 address);

void memory_pin(void *p, u64 n_bytes, bool registered, const char *call);
/* Whether p was pinned the same way (false with a report otherwise). */
bool memory_unpin(void *p, bool registered, const char *call);
bool memory_is_pinned(const void *p, u64 n_bytes);

u8 *memory_data(u64 address);
u8 *memory_state(u64 address);

void memory_allow_peer(int device, int peer, bool allowed);
bool memory_peer_allowed(int device, int peer);

} // namespace vgpu
#endif
