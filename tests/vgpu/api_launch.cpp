/* CUDA calls about kernels, and those that nvcc's code makes on its own. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>
#include <vector>
#include "device.h"
#include "fatbin.h"
#include "fault.h"
#include "launch.h"
#include "module.h"
#include "settings.h"
#include "stream.h"

using namespace vgpu;

namespace
{

struct Configuration {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
};

std::vector<Configuration> &configurations()
{
    static thread_local std::vector<Configuration> stack;
    return stack;
}

std::atomic<u64> n_launches;

/* Of all threads: other programs on the machine do not count. */
double cpu_seconds()
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/* Every limit that a real launch would be refused for. */
cudaError_t check(Kernel *k, const Program &p, const Configuration &c)
{
    auto refuse = [&](cudaError_t error, const std::string &why) {
        fprintf(stderr, "vgpu: launch of %s refused [%s]: %s\n", p.pretty.c_str(), cudaGetErrorName(error),
                why.c_str());
        return error;
    };
    u64 threads = static_cast<u64>(c.block.x) * c.block.y * c.block.z;
    if (threads == 0 || c.grid.x == 0 || c.grid.y == 0 || c.grid.z == 0)
        return refuse(cudaErrorInvalidConfiguration, "an empty grid or block");
    if (threads > 1024 || c.block.x > 1024 || c.block.y > 1024 || c.block.z > 64)
        return refuse(cudaErrorInvalidConfiguration,
                      fault_format("block (%u, %u, %u)", c.block.x, c.block.y, c.block.z));
    if (c.grid.x > 2147483647u || c.grid.y > 65535 || c.grid.z > 65535)
        return refuse(cudaErrorInvalidConfiguration, fault_format("grid (%u, %u, %u)", c.grid.x, c.grid.y, c.grid.z));
    if (p.max_threads && threads > p.max_threads)
        return refuse(cudaErrorLaunchOutOfResources,
                      fault_format("%llu threads, __launch_bounds__ says %u", static_cast<unsigned long long>(threads),
                                   p.max_threads));
    int allowed = k->max_dynamic_shared[device_current()];
    u64 limit = allowed > SHARED_DEFAULT - static_cast<int>(p.shared_declared)
                    ? p.shared_declared + static_cast<u64>(allowed)
                    : u64{SHARED_DEFAULT};
    if (p.shared_declared + c.shared > limit)
        return refuse(cudaErrorInvalidValue,
                      fault_format("%zu bytes of dynamic and %u of static shared memory, %llu allowed on device %d "
                                   "(cudaFuncAttributeMaxDynamicSharedMemorySize)",
                                   c.shared, p.shared_declared, static_cast<unsigned long long>(limit),
                                   device_current()));
    return cudaSuccess;
}

cudaError_t launch(Kernel *k, const Configuration &c, void **args)
{
    if (!device_count()) return cudaErrorNoDevice;
    if (error_sticky() != cudaSuccess) return error_sticky();
    Program *p = kernel_program(k);
    if (!p) return cudaErrorInvalidPtx;
    cudaError_t error = check(k, *p, c);
    if (error != cudaSuccess) return error;
    StreamRef s = stream_of(c.stream);
    if (!s || stream_device(s) != device_current()) {
        fault_report(-1, cudaSuccess,
                     fault_format("launch of %s on %s", p->pretty.c_str(),
                                  s ? fault_format("a stream of device %d while device %d is current", stream_device(s),
                                                   device_current())
                                          .c_str()
                                    : "a stream that is not live"));
        return cudaErrorInvalidResourceHandle;
    }
    auto l = std::make_shared<Launch>();
    l->program = p;
    l->device = device_current();
    l->grid = c.grid;
    l->block = c.block;
    l->dynamic_shared = static_cast<u32>(c.shared);
    l->number = ++n_launches;
    l->params.resize(p->param_bytes);
    for (size_t a = 0; a < p->params.size(); ++a)
        memcpy(l->params.data() + p->params[a].offset, args[a], p->params[a].n_bytes);
    for (const ProgramConstant &constant : p->constants)
        l->symbols.push_back(constant.symbol.empty() ? 0
                                                     : module_address(k->module, l->device, constant.symbol, nullptr));
    auto run = [l, k] {
        double begin = cpu_seconds();
        bool good = launch_run(l.get());
        static std::mutex lock;
        std::lock_guard<std::mutex> guard(lock);
        k->seconds += cpu_seconds() - begin;
        k->instructions += l->n_instr;
        ++k->launches;
        return good ? VGPU_DONE : VGPU_FAILED;
    };
    return stream_put(s, {p->pretty.c_str(), run, false, {}, false});
}

Kernel *find(const void *function, cudaError_t *error)
{
    Kernel *k = module_find_function(function);
    *error = k ? cudaSuccess : cudaErrorInvalidDeviceFunction;
    return k;
}

int blocks_per_sm(const Program &p, int threads, size_t dynamic_shared)
{
    if (threads <= 0) return 0;
    int warps = (threads + 31) / 32, by_threads = 64 / warps;
    size_t shared = p.shared_declared + dynamic_shared + 1024;
    int by_shared = static_cast<int>(static_cast<size_t>(device_shared_per_sm()) / shared);
    int n = by_threads < by_shared ? by_threads : by_shared;
    return n > 32 ? 32 : n;
}

} // namespace

extern "C" {

void **__cudaRegisterFatBinary(void *wrapper)
{
    unsigned arch = 0;
    std::string why;
    std::string text =
        fatbin_ptx(wrapper, static_cast<unsigned>(settings().major * 10 + settings().minor), &arch, &why);
    Module *m = nullptr;
    if (text.empty()) {
        fault_report(-1, cudaSuccess, why);
    } else {
        try {
            m = module_load(text, arch);
        } catch (const PtxError &e) {
            fault_report(-1, cudaSuccess, e.what());
        }
    }
    return reinterpret_cast<void **>(m);
}

void __cudaRegisterFatBinaryEnd(void **)
{
}

void __cudaUnregisterFatBinary(void **handle)
{
    if (handle) module_unload(reinterpret_cast<Module *>(handle));
}

char __cudaInitModule(void **)
{
    return 1;
}

void __cudaRegisterFunction(void **handle, const char *host, char *, const char *name, int, uint3 *, uint3 *, dim3 *,
                            dim3 *, int *)
{
    if (!handle) return;
    Kernel *k = module_kernel(reinterpret_cast<Module *>(handle), name);
    if (!k)
        fault_report(-1, cudaSuccess, std::string("the PTX has no kernel ") + name);
    else
        module_register_function(host, k);
}

void __cudaRegisterVar(void **handle, char *host, char *, const char *name, int, size_t, int, int)
{
    if (handle) module_register_variable(host, reinterpret_cast<Module *>(handle), name);
}

void __cudaRegisterManagedVar(void **, void **, char *, const char *name, int, size_t, int, int)
{
    fault_report(-1, cudaSuccess, std::string("managed variable ") + name + ": managed memory is not supported");
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, struct CUstream_st *stream)
{
    configurations().push_back({grid, block, shared, stream});
    return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream)
{
    std::vector<Configuration> &stack = configurations();
    if (stack.empty()) return cudaErrorMissingConfiguration;
    Configuration c = stack.back();
    stack.pop_back();
    *grid = c.grid;
    *block = c.block;
    *shared = c.shared;
    *static_cast<cudaStream_t *>(stream) = c.stream;
    return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function)
{
    cudaError_t error;
    *kernel = reinterpret_cast<cudaKernel_t>(find(function, &error));
    return error;
}

cudaError_t cudaGetKernel(cudaKernel_t *kernel, const void *function)
{
    return error_return(__cudaGetKernel(kernel, function));
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t shared,
                               cudaStream_t stream)
{
    if (!kernel) return error_return(cudaErrorInvalidDeviceFunction);
    return error_return(launch(reinterpret_cast<Kernel *>(kernel), {grid, block, shared, stream}, args));
}

cudaError_t cudaLaunchKernel(const void *function, dim3 grid, dim3 block, void **args, size_t shared,
                             cudaStream_t stream)
{
    cudaError_t error;
    Kernel *k = find(function, &error);
    return error_return(k ? launch(k, {grid, block, shared, stream}, args) : error);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *function, void **args)
{
    return cudaLaunchKernel(function, config->gridDim, config->blockDim, args, config->dynamicSmemBytes,
                            config->stream);
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value)
{
    cudaError_t error;
    Kernel *k = find(function, &error);
    if (!k) return error_return(error);
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout)
        return error_return(value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return error_return(cudaErrorInvalidValue);
    Program *p = kernel_program(k);
    if (!p) return error_return(cudaErrorInvalidPtx);
    if (value < 0 || value + static_cast<int>(p->shared_declared) > device_shared_optin())
        return error_return(cudaErrorInvalidValue);
    k->max_dynamic_shared[device_current()] = value;
    return error_return(cudaSuccess);
}

cudaError_t cudaFuncSetCacheConfig(const void *function, cudaFuncCache)
{
    cudaError_t error;
    find(function, &error);
    return error_return(error);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, const void *function)
{
    cudaError_t error;
    Kernel *k = find(function, &error);
    if (!k) return error_return(error);
    Program *p = kernel_program(k);
    if (!p) return error_return(cudaErrorInvalidPtx);
    memset(a, 0, sizeof *a);
    a->sharedSizeBytes = p->shared_declared;
    a->localSizeBytes = p->local_bytes;
    a->maxThreadsPerBlock = p->max_threads ? static_cast<int>(p->max_threads) : 1024;
    a->numRegs = 0; /* PTX does not know: ask ptxas -v */
    a->ptxVersion = static_cast<int>(k->module->arch);
    a->binaryVersion = settings().major * 10 + settings().minor;
    int allowed = k->max_dynamic_shared[device_current()];
    a->maxDynamicSharedSizeBytes = allowed ? allowed : SHARED_DEFAULT - static_cast<int>(p->shared_declared);
    a->preferredShmemCarveout = -1;
    return error_return(cudaSuccess);
}

cudaError_t cudaFuncGetName(const char **name, const void *function)
{
    cudaError_t error;
    Kernel *k = find(function, &error);
    if (k) *name = k->name.c_str();
    return error_return(error);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *function, int threads,
                                                                   size_t shared, unsigned)
{
    cudaError_t error;
    Kernel *k = find(function, &error);
    if (!k) return error_return(error);
    Program *p = kernel_program(k);
    if (!p) return error_return(cudaErrorInvalidPtx);
    *n = blocks_per_sm(*p, threads, shared);
    return error_return(cudaSuccess);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *n, const void *function, int threads, size_t shared)
{
    return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(n, function, threads, shared, 0);
}

} // extern "C"
