/* Modules (one per fatbin), their kernels and variables, as the code that nvcc makes registers them. */
#ifndef VGPU_MODULE_H
#define VGPU_MODULE_H

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>
#include "memory.h"
#include "program.h"

namespace vgpu
{

struct Module;

struct Kernel {
    Module *module;
    std::string name;
    std::once_flag decoded;
    Program program;
    std::string error;                        /* why decoding failed */
    int max_dynamic_shared[MAX_DEVICES] = {}; /* cudaFuncSetAttribute, per device; 0: not set */
    uint64_t launches = 0, instructions = 0;
    double seconds = 0;
};

struct Module {
    std::string text; /* of the PTX */
    unsigned arch = 0;
    PtxModule ptx;
    std::map<std::string, std::unique_ptr<Kernel>> kernels;
    std::map<std::string, u64> addresses[MAX_DEVICES]; /* of variables, once used on a device */
};

/* Throws PtxError. */
Module *module_load(const std::string &ptx, unsigned arch);
void module_unload(Module *m);
Kernel *module_kernel(Module *m, const std::string &name); /* NULL: none of that name */
/* Decodes at first use; NULL with a report when the PTX cannot be run. */
Program *kernel_program(Kernel *k);
/* Address of a variable, allocated and initialised on that device at first use; 0: no such variable. */
u64 module_address(Module *m, int device, const std::string &name, u64 *n_bytes);
const std::vector<Module *> &module_list();

void module_register_function(const void *host, Kernel *k);
Kernel *module_find_function(const void *host);
void module_register_variable(const void *host, Module *m, const std::string &name);
/* Address on the device; 0: not registered. */
u64 module_find_variable(const void *host, int device, u64 *n_bytes);

} // namespace vgpu
#endif
