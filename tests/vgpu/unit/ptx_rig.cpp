#include "ptx_rig.h"

#include <cstring>
#include <memory>
#include "device.h"
#include "fault.h"
#include "launch.h"
#include "memory.h"
#include "module.h"

using namespace vgpu;

static const char header[] = ".version 8.0\n.target sm_80\n.address_size 64\n";

uint64_t ptx_memory(size_t n_bytes)
{
    u64 address;
    assert_int_equal(memory_allocate(0, n_bytes, "test", false, &address), cudaSuccess);
    return address;
}

int ptx_release(void **)
{
    memory_release_device(0);
    return 0;
}

void ptx_upload(uint64_t address, const void *from, size_t n_bytes)
{
    memcpy(memory_data(address), from, n_bytes);
    memset(memory_state(address), BYTE_WRITTEN, n_bytes);
}

void ptx_download(void *to, uint64_t address, size_t n_bytes)
{
    memcpy(to, memory_data(address), n_bytes);
}

std::string ptx_run(const std::string &kernel, unsigned grid, unsigned block, const std::vector<uint64_t> &params,
                    unsigned shared)
{
    Module *m;
    Program *p;
    fault_forget();
    try {
        m = module_load(header + kernel, 80);
    } catch (const PtxError &e) {
        return e.what();
    }
    p = kernel_program(m->kernels.begin()->second.get());
    if (!p) {
        std::string why = fault_last();
        fault_forget();
        return why;
    }
    Launch l;
    l.program = p;
    l.device = 0;
    l.grid = dim3(grid);
    l.block = dim3(block);
    l.dynamic_shared = shared;
    l.number = 1;
    l.params.resize(p->param_bytes);
    for (size_t k = 0; k < p->params.size() && k < params.size(); ++k)
        memcpy(l.params.data() + p->params[k].offset, &params[k], p->params[k].n_bytes);
    for (const ProgramConstant &c : p->constants)
        l.symbols.push_back(c.symbol.empty() ? 0 : module_address(m, 0, c.symbol, nullptr));
    launch_run(&l);
    std::string why = fault_last();
    fault_forget();
    device_reset(0);
    return why;
}

/* %p9: the lane takes part. Results start as 0x5a5a...: what idle lanes must keep. */
static std::string row_kernel(const PtxRow &row)
{
    std::string store = row.result == 'q'   ? "st.global.u64 [%q1], %q10;"
                        : row.result == 'r' ? "st.global.u32 [%q1], %r10;"
                        : row.result == 'f' ? "st.global.f32 [%q1], %f10;"
                        : row.result == 'd' ? "st.global.f64 [%q1], %d10;"
                        : row.result == 'h' ? "st.global.u16 [%q1], %h10;"
                                            : "selp.u32 %r10, 1, 0, %p1; st.global.u32 [%q1], %r10;";
    return std::string(
               ".visible .entry k(.param .u64 in, .param .u64 out, .param .u32 lanes)\n{\n"
               ".reg .pred %p<10>; .reg .b16 %h<12>; .reg .b32 %r<32>; .reg .f32 %f<32>; .reg .f64 %d<12>; .reg .b64 "
               "%q<32>;\n"
               "ld.param.u64 %q0, [in]; ld.param.u64 %q1, [out]; ld.param.u32 %r0, [lanes];\n"
               "ld.global.v2.u64 {%q2, %q3}, [%q0]; ld.global.v2.u64 {%q4, %q5}, [%q0+16];\n"
               "cvt.u32.u64 %r2, %q2; cvt.u32.u64 %r3, %q3; cvt.u32.u64 %r4, %q4; cvt.u32.u64 %r5, %q5;\n"
               "cvt.u16.u64 %h2, %q2; cvt.u16.u64 %h3, %q3; cvt.u16.u64 %h4, %q4; cvt.u16.u64 %h5, %q5;\n"
               "mov.b32 %f2, %r2; mov.b32 %f3, %r3; mov.b32 %f4, %r4; mov.b64 %d2, %q2; mov.b64 %d3, %q3; mov.b64 %d4, "
               "%q4;\n"
               "mov.u64 %q10, 0x5a5a5a5a5a5a5a5a; mov.b64 %d10, %q10; mov.u32 %r10, 0x5a5a5a5a; mov.b32 %f10, %r10;\n"
               "mov.u16 %h10, 0x5a5a; setp.ne.u32 %p1, 0, 0;\n"
               "mov.u32 %r1, %laneid; shl.b32 %r31, %r1, 3; cvt.u64.u32 %q31, %r31; add.u64 %q1, %q1, %q31;\n"
               "shr.u32 %r31, %r0, %r1; and.b32 %r31, %r31, 1; setp.eq.u32 %p9, %r31, 0;\n"
               "@%p9 bra SKIP;\n") +
           row.code + "\nSKIP:\n" + store + "\nret;\n}\n";
}

void ptx_check_rows(const PtxRow *rows, size_t n)
{
    uint64_t in = ptx_memory(32), out = ptx_memory(8 * LANES);
    size_t wrong = 0;
    for (size_t k = 0; k < n; ++k) {
        const PtxRow &row = rows[k];
        const uint64_t operands[4] = {row.a, row.b, row.c, row.d};
        ptx_upload(in, operands, sizeof operands);
        const uint64_t idle = row.result == 'q' || row.result == 'd' ? 0x5a5a5a5a5a5a5a5aull
                              : row.result == 'p'                    ? 0
                              : row.result == 'h'                    ? 0x5a5a
                                                                     : 0x5a5a5a5a;
        for (uint32_t lanes : {0xffffffffu, 0xaaaaaaaau}) {
            uint64_t got[LANES] = {};
            ptx_upload(out, got, sizeof got);
            std::string fault = ptx_run(row_kernel(row), 1, LANES, {in, out, lanes});
            if (!fault.empty()) {
                print_error("row %zu: %s\n   fault: %s\n", k, row.code, fault.c_str());
                ++wrong;
                break;
            }
            ptx_download(got, out, sizeof got);
            int bad = -1;
            for (int l = 0; l < LANES; ++l)
                if (got[l] != (lanes >> l & 1 ? row.want : idle)) bad = l;
            if (bad < 0) continue;
            print_error("row %zu: %s\n   lanes 0x%08x, lane %d: got 0x%llx, want 0x%llx\n", k, row.code, lanes, bad,
                        static_cast<unsigned long long>(got[bad]),
                        static_cast<unsigned long long>(lanes >> bad & 1 ? row.want : idle));
            ++wrong;
            break;
        }
    }
    memory_free(in, "test");
    memory_free(out, "test");
    assert_int_equal(wrong, 0);
}
