#include "module.h"

#include <algorithm>
#include <cstring>
#include "fault.h"

namespace vgpu
{
namespace
{

struct Registry {
    std::mutex lock;
    std::vector<Module *> modules;
    std::map<const void *, Kernel *> functions;
    std::map<const void *, std::pair<Module *, std::string>> variables;
};

Registry &registry()
{
    static Registry *r = new Registry; /* read by handlers that run last */
    return *r;
}

const PtxVariable *variable(const Module *m, const std::string &name)
{
    for (const PtxVariable &v : m->ptx.variables)
        if (v.name == name && (v.space == PtxSpace::GLOBAL || v.space == PtxSpace::CONST)) return &v;
    return nullptr;
}

} // namespace

Module *module_load(const std::string &ptx, unsigned arch)
{
    auto m = std::make_unique<Module>();
    m->text = ptx;
    m->arch = arch;
    m->ptx = ptx_parse(ptx);
    for (auto &[name, f] : m->ptx.functions) {
        if (!f.is_entry || !f.has_body) continue;
        auto k = std::make_unique<Kernel>();
        k->module = m.get();
        k->name = name;
        m->kernels[name] = std::move(k);
    }
    Registry &r = registry();
    std::lock_guard<std::mutex> guard(r.lock);
    r.modules.push_back(m.get());
    return m.release();
}

/* Kernels stay: their coverage is written at the very end. */
void module_unload(Module *m)
{
    Registry &r = registry();
    std::lock_guard<std::mutex> guard(r.lock);
    for (auto it = r.functions.begin(); it != r.functions.end();)
        it = it->second->module == m ? r.functions.erase(it) : std::next(it);
    for (auto it = r.variables.begin(); it != r.variables.end();)
        it = it->second.first == m ? r.variables.erase(it) : std::next(it);
}

Kernel *module_kernel(Module *m, const std::string &name)
{
    auto it = m->kernels.find(name);
    return it == m->kernels.end() ? nullptr : it->second.get();
}

Program *kernel_program(Kernel *k)
{
    std::call_once(k->decoded, [k] {
        try {
            program_decode(&k->program, k->module->ptx, k->name);
        } catch (const PtxError &e) {
            k->error = e.what();
        }
    });
    if (k->error.empty()) return &k->program;
    fault_report(-1, cudaSuccess, "cannot run kernel " + k->name + ": " + k->error);
    return nullptr;
}

u64 module_address(Module *m, int device, const std::string &name, u64 *n_bytes)
{
    const PtxVariable *v = variable(m, name);
    if (!v) return 0;
    if (n_bytes) *n_bytes = v->n_bytes;
    {
        Registry &r = registry();
        std::lock_guard<std::mutex> guard(r.lock);
        auto it = m->addresses[device].find(name);
        if (it != m->addresses[device].end()) return it->second;
        u64 address;
        if (memory_allocate(device, v->n_bytes, name.c_str(), true, &address) != cudaSuccess) return 0;
        if (v->initial.empty())
            memset(memory_data(address), 0, v->n_bytes);
        else
            memcpy(memory_data(address), v->initial.data(), v->n_bytes);
        memset(memory_state(address), BYTE_WRITTEN, v->n_bytes);
        m->addresses[device][name] = address;
    }
    u64 own = m->addresses[device][name];
    for (const auto &[at, symbol] : v->addresses) {
        u64 value, other = module_address(m, device, symbol, nullptr);
        memcpy(&value, memory_data(own) + at, 8);
        value += other;
        memcpy(memory_data(own) + at, &value, 8);
    }
    return own;
}

const std::vector<Module *> &module_list()
{
    return registry().modules;
}

void module_register_function(const void *host, Kernel *k)
{
    Registry &r = registry();
    std::lock_guard<std::mutex> guard(r.lock);
    r.functions[host] = k;
}

Kernel *module_find_function(const void *host)
{
    Registry &r = registry();
    std::lock_guard<std::mutex> guard(r.lock);
    auto it = r.functions.find(host);
    return it == r.functions.end() ? nullptr : it->second;
}

void module_register_variable(const void *host, Module *m, const std::string &name)
{
    Registry &r = registry();
    std::lock_guard<std::mutex> guard(r.lock);
    r.variables[host] = {m, name};
}

u64 module_find_variable(const void *host, int device, u64 *n_bytes)
{
    std::pair<Module *, std::string> found;
    {
        Registry &r = registry();
        std::lock_guard<std::mutex> guard(r.lock);
        auto it = r.variables.find(host);
        if (it == r.variables.end()) return 0;
        found = it->second;
    }
    return module_address(found.first, device, found.second, n_bytes);
}

} // namespace vgpu
