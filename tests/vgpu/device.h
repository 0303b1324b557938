/* The devices of this process, and which one a host thread has chosen. */
#ifndef VGPU_DEVICE_H
#define VGPU_DEVICE_H

#include <cuda_runtime_api.h>

namespace vgpu
{

int device_count();
int device_current();
void device_set_current(int device);
/* First error of a device that sticks to it: every later call returns it. */
cudaError_t device_sticky(int device);
void device_stick(int device, cudaError_t error);
void device_reset(int device);

/* Shared memory per block: without and with cudaFuncSetAttribute, and per multiprocessor. */
constexpr int SHARED_DEFAULT = 48 << 10;
int device_shared_optin();
int device_shared_per_sm();
void device_properties(int device, cudaDeviceProp *p);
cudaError_t device_attribute(int *value, cudaDeviceAttr attribute, int device);

} // namespace vgpu
#endif
