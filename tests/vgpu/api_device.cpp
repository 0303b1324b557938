/* CUDA calls about devices. */
#include <cstdio>
#include <cstring>
#include "device.h"
#include "fault.h"
#include "memory.h"
#include "module.h"
#include "settings.h"
#include "stream.h"

using namespace vgpu;

static bool known_device(int device)
{
    return device >= 0 && device < device_count();
}

extern "C" {

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = device_count();
    return error_return(*count ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device)
{
    if (!known_device(device)) return error_return(device_count() ? cudaErrorInvalidDevice : cudaErrorNoDevice);
    device_set_current(device);
    return error_return(cudaSuccess);
}

cudaError_t cudaInitDevice(int device, unsigned, unsigned)
{
    return error_return(known_device(device) ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDevice(int *device)
{
    if (!device_count()) return error_return(cudaErrorNoDevice);
    *device = device_current();
    return error_return(cudaSuccess);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    if (!known_device(device)) return error_return(cudaErrorInvalidDevice);
    device_properties(device, p);
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    if (!known_device(device)) return error_return(cudaErrorInvalidDevice);
    return error_return(device_attribute(value, attribute, device));
}

cudaError_t cudaDeviceGetPCIBusId(char *id, int length, int device)
{
    if (!known_device(device)) return error_return(cudaErrorInvalidDevice);
    snprintf(id, static_cast<size_t>(length), "0000:%02X:00.0", device + 1);
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceGetByPCIBusId(int *device, const char *id)
{
    unsigned bus;
    if (sscanf(id, "%*x:%x:", &bus) != 1 || !known_device(static_cast<int>(bus) - 1))
        return error_return(cudaErrorInvalidValue);
    *device = static_cast<int>(bus) - 1;
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceSynchronize(void)
{
    return error_return(stream_wait_device(device_current()));
}

cudaError_t cudaDeviceReset(void)
{
    int device = device_current();
    stream_wait_device(device);
    memory_release_device(device);
    device_reset(device);
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    if (least) *least = 0;
    if (greatest) *greatest = -5;
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceSetLimit(cudaLimit, size_t)
{
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceGetLimit(size_t *value, cudaLimit limit)
{
    *value = limit == cudaLimitStackSize ? 1024 : limit == cudaLimitPrintfFifoSize ? 1 << 20 : 8 << 20;
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceSetCacheConfig(cudaFuncCache)
{
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceGetCacheConfig(cudaFuncCache *config)
{
    *config = cudaFuncCachePreferNone;
    return error_return(cudaSuccess);
}

cudaError_t cudaSetDeviceFlags(unsigned)
{
    return error_return(cudaSuccess);
}

cudaError_t cudaGetDeviceFlags(unsigned *flags)
{
    *flags = 0;
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    if (!known_device(device) || !known_device(peer)) return error_return(cudaErrorInvalidDevice);
    *can = device != peer;
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    int device = device_current();
    if (!known_device(peer) || peer == device) return error_return(cudaErrorInvalidDevice);
    if (flags) return error_return(cudaErrorInvalidValue);
    if (memory_peer_allowed(device, peer)) return error_return(cudaErrorPeerAccessAlreadyEnabled);
    memory_allow_peer(device, peer, true);
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceDisablePeerAccess(int peer)
{
    int device = device_current();
    if (!known_device(peer)) return error_return(cudaErrorInvalidDevice);
    if (!memory_peer_allowed(device, peer)) return error_return(cudaErrorPeerAccessNotEnabled);
    memory_allow_peer(device, peer, false);
    return error_return(cudaSuccess);
}

cudaError_t cudaDeviceGetP2PAttribute(int *value, cudaDeviceP2PAttr attribute, int from, int to)
{
    if (!known_device(from) || !known_device(to) || from == to) return error_return(cudaErrorInvalidDevice);
    *value = attribute == cudaDevP2PAttrAccessSupported || attribute == cudaDevP2PAttrNativeAtomicSupported;
    return error_return(cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return error_return(cudaSuccess);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return error_return(cudaSuccess);
}

} // extern "C"
