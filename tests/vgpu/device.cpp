#include "device.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#include "memory.h"
#include "settings.h"

namespace vgpu
{
namespace
{

std::atomic<int> sticky[MAX_DEVICES];
thread_local int current = 0;

/* CUDA_VISIBLE_DEVICES hides devices as on real machines: a list of numbers, cut at the first that is not one. */
int visible_count()
{
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    int all = settings().n_devices, n = 0;
    if (!list) return all;
    while (*list) {
        char *end;
        long d = strtol(list, &end, 10);
        if (end == list || d < 0 || d >= all) break;
        ++n;
        list = *end == ',' ? end + 1 : end;
        if (*end && *end != ',') break;
    }
    return n;
}

} // namespace

int device_count()
{
    static const int n = visible_count();
    return n;
}

int device_current()
{
    return current;
}

void device_set_current(int device)
{
    current = device;
}

cudaError_t device_sticky(int device)
{
    return static_cast<cudaError_t>(sticky[device].load());
}

void device_stick(int device, cudaError_t error)
{
    int none = 0;
    sticky[device].compare_exchange_strong(none, error);
}

void device_reset(int device)
{
    sticky[device] = 0;
}

int device_shared_optin()
{
    const Settings &s = settings();
    int cc = s.major * 10 + s.minor;
    if (cc == 80 || cc == 87) return 163 << 10;
    if (cc == 90 || cc >= 100) return cc == 120 || cc == 121 ? 99 << 10 : 227 << 10;
    return cc == 75 ? 64 << 10 : 99 << 10;
}

int device_shared_per_sm()
{
    return device_shared_optin() + (1 << 10);
}

void device_properties(int device, cudaDeviceProp *p)
{
    const Settings &s = settings();
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "Virtual GPU");
    for (int k = 0; k < 16; ++k)
        p->uuid.bytes[k] = static_cast<char>(k == 15 ? device : 0x56 + k);
    p->totalGlobalMem = s.memory_bytes;
    p->sharedMemPerBlock = SHARED_DEFAULT;
    p->regsPerBlock = 65536;
    p->warpSize = 32;
    p->memPitch = 2147483647;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->totalConstMem = 65536;
    p->major = s.major;
    p->minor = s.minor;
    p->textureAlignment = 512;
    p->texturePitchAlignment = 32;
    p->multiProcessorCount = 108;
    p->canMapHostMemory = 1;
    p->concurrentKernels = 1;
    p->pciBusID = device + 1;
    p->asyncEngineCount = 3;
    p->unifiedAddressing = 1;
    p->memoryBusWidth = 5120;
    p->l2CacheSize = 40 << 20;
    p->maxThreadsPerMultiProcessor = 2048;
    p->streamPrioritiesSupported = 1;
    p->globalL1CacheSupported = p->localL1CacheSupported = 1;
    p->sharedMemPerMultiprocessor = static_cast<size_t>(device_shared_per_sm());
    p->regsPerMultiprocessor = 65536;
    p->sharedMemPerBlockOptin = static_cast<size_t>(device_shared_optin());
    p->reservedSharedMemPerBlock = 1024;
    p->maxBlocksPerMultiProcessor = 32;
    p->hostRegisterSupported = 1;
    p->memoryPoolsSupported = 1;
}

cudaError_t device_attribute(int *value, cudaDeviceAttr attribute, int device)
{
    cudaDeviceProp p;
    device_properties(device, &p);
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = p.maxThreadsPerBlock;
        break;
    case cudaDevAttrMaxBlockDimX:
        *value = p.maxThreadsDim[0];
        break;
    case cudaDevAttrMaxBlockDimY:
        *value = p.maxThreadsDim[1];
        break;
    case cudaDevAttrMaxBlockDimZ:
        *value = p.maxThreadsDim[2];
        break;
    case cudaDevAttrMaxGridDimX:
        *value = p.maxGridSize[0];
        break;
    case cudaDevAttrMaxGridDimY:
        *value = p.maxGridSize[1];
        break;
    case cudaDevAttrMaxGridDimZ:
        *value = p.maxGridSize[2];
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = SHARED_DEFAULT;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = device_shared_optin();
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = device_shared_per_sm();
        break;
    case cudaDevAttrReservedSharedMemoryPerBlock:
        *value = 1024;
        break;
    case cudaDevAttrTotalConstantMemory:
        *value = 65536;
        break;
    case cudaDevAttrWarpSize:
        *value = 32;
        break;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor:
        *value = 65536;
        break;
    case cudaDevAttrClockRate:
        *value = 1410000;
        break;
    case cudaDevAttrMemoryClockRate:
        *value = 1215000;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = p.maxThreadsPerMultiProcessor;
        break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
        *value = p.maxBlocksPerMultiProcessor;
        break;
    case cudaDevAttrL2CacheSize:
        *value = p.l2CacheSize;
        break;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = p.memoryBusWidth;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        break;
    case cudaDevAttrPciBusId:
        *value = p.pciBusID;
        break;
    case cudaDevAttrConcurrentKernels:
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrCanMapHostMemory:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrHostRegisterSupported:
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
    case cudaDevAttrMemoryPoolsSupported:
        *value = 1;
        break;
    case cudaDevAttrAsyncEngineCount:
        *value = p.asyncEngineCount;
        break;
    case cudaDevAttrIntegrated:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrComputeMode:
    case cudaDevAttrEccEnabled:
    case cudaDevAttrKernelExecTimeout:
    case cudaDevAttrPciDeviceId:
    case cudaDevAttrPciDomainId:
        *value = 0;
        break;
    default:
        return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}

} // namespace vgpu
