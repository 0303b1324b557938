/* All operations by key. The files that matter for speed exist twice; the processor chooses. */
#include <cstdlib>
#include <string>
#include <unordered_map>
#include "program.h"

namespace vgpu
{

#define DECLARE(isa)                                                                                                   \
    namespace isa                                                                                                      \
    {                                                                                                                  \
    extern const OpEntry integer_ops[], float_ops[], compare_ops[], convert_ops[], memory_ops[], matrix_ops[];         \
    }
DECLARE(avx2)
DECLARE(avx512)
extern const OpEntry warp_ops[], atomic_ops[], async_ops[];

static std::unordered_map<std::string, Op> *load_table()
{
    auto *table = new std::unordered_map<std::string, Op>;
    const OpEntry *wide[] = {avx512::integer_ops, avx512::float_ops,  avx512::compare_ops,
                             avx512::convert_ops, avx512::memory_ops, avx512::matrix_ops};
    const OpEntry *narrow[] = {avx2::integer_ops, avx2::float_ops,  avx2::compare_ops,
                               avx2::convert_ops, avx2::memory_ops, avx2::matrix_ops};
    const OpEntry *common[] = {warp_ops, atomic_ops, async_ops};
    const char *isa = getenv("VGPU_ISA");
    bool has_wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (isa && std::string(isa) == "avx2") has_wide = false;
    for (const OpEntry *list : has_wide ? wide : narrow)
        for (; list->key; ++list)
            (*table)[list->key] = list->op;
    for (const OpEntry *list : common)
        for (; list->key; ++list)
            (*table)[list->key] = list->op;
    return table;
}

Op op_find(const std::string &key)
{
    static const auto *table = load_table();
    auto it = table->find(key);
    return it == table->end() ? nullptr : it->second;
}

} // namespace vgpu
