/* What of the weights stays on a card that is too small for all of them (design D5). Pure arithmetic, the same for the planner
 * and for what keeps them there (kernels/cuda/cuda_weights.c). */
#ifndef DYPE_RESIDENCY_H
#define DYPE_RESIDENCY_H

#include <stdint.h>

/* Bytes of a card that stay free for libraries which allocate on their own. */
int64_t residency_reserve(int64_t card_bytes);
/* Bytes of the ring through which weights pass that do not stay: some transformer blocks of FLUX.1 (226 MB, a double block with
 * text 453), so that uploads run ahead of the work. */
int64_t residency_ring(int64_t card_bytes);

typedef struct residency {
    int64_t resident, streamed; /* streamed: once in each step */
} residency;
/* Of so many bytes of weights when `room` bytes are left for them and the ring. */
residency residency_of(int64_t weight_bytes, int64_t room, int64_t ring);

#endif
