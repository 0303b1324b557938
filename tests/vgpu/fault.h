/* What is reported, what sticks, and how the process ends. */
#ifndef VGPU_FAULT_H
#define VGPU_FAULT_H

#include <cstdarg>
#include <string>
#include <cuda_runtime_api.h>

namespace vgpu
{

/* Prints "vgpu: ..." and counts it; error != cudaSuccess sticks to the device. device -1: to none. */
void fault_report(int device, cudaError_t error, const std::string &message);
std::string fault_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
std::string fault_vformat(const char *format, va_list args);
int fault_count();
/* For the tests of the virtual GPU itself: the last message, and faults that were wanted and do not count. */
std::string fault_last();
void fault_forget();

/* Errors as the CUDA calls see them: sticky ones of the device first. Every call returns through this. */
cudaError_t error_return(cudaError_t error);
/* While a host function of cudaLaunchHostFunc runs on this thread, every CUDA call is a fault. */
void error_host_function(bool runs);
/* The current device's sticky error. */
cudaError_t error_sticky();

} // namespace vgpu
#endif
