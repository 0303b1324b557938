/* A device as a table of kernels that take host memory, as those of the cpu do: each operation copies what its arguments
 * point at to the device, runs there on a stream and copies the results back. So one set of kernel tests serves all. */
#ifndef DYPE_DEVICE_KERNELS_H
#define DYPE_DEVICE_KERNELS_H

#include "device.h"

/* Opens and closes a device of its own kind. Its context is no kernel_context: only for the table's functions. */
const kernel_table *kernels_cuda(void);

/* Whether there is a GPU to test on; else prints why as a "not run" line. */
bool cuda_is_there(void);

/* Whether the environment's DYPE_TEST_DEVICE asks for the GPU. */
bool test_device_is_cuda(void);

#endif
