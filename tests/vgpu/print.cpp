/* printf and assert in kernels: the format and its arguments lie where vprintf expects them. */
#include <cstdio>
#include <cstring>
#include <string>
#include "fault.h"
#include "launch.h"
#include "memory.h"

namespace vgpu
{
namespace
{

u64 local_word(Warp &w, int lane, s64 at)
{
    u64 v;
    memcpy(&v, w.local + static_cast<size_t>(lane) * w.local_bytes + at, 8);
    return v;
}

/* A string that the kernel names by a generic address. */
std::string text_at(Warp &w, u64 address)
{
    std::string s;
    Range range;
    if (!warp_find_range(w, address, &range)) return "(bad string)";
    for (; address < range.end; ++address) {
        char c = *reinterpret_cast<const char *>(address + static_cast<u64>(range.to_data));
        if (!c) break;
        s += c;
    }
    return s;
}

/* One conversion after the other, each with its own argument of 8-byte alignment for 64-bit values, else 4. */
std::string formatted(Warp &w, int lane, const std::string &format, s64 at)
{
    std::string out;
    size_t base = static_cast<size_t>(lane) * w.local_bytes;
    auto fetch = [&](unsigned n) {
        at = (at + n - 1) / n * n;
        u64 v = 0;
        if (at + n <= w.local_bytes) memcpy(&v, w.local + base + static_cast<size_t>(at), n);
        at += n;
        return v;
    };
    for (size_t k = 0; k < format.size(); ++k) {
        if (format[k] != '%') {
            out += format[k];
            continue;
        }
        if (k + 1 < format.size() && format[k + 1] == '%') {
            out += '%', ++k;
            continue;
        }
        size_t end = format.find_first_of("diouxXcsfFeEgGaAp", k + 1);
        if (end == std::string::npos) break;
        std::string spec = format.substr(k, end - k + 1);
        for (size_t star; (star = spec.find('*')) != std::string::npos;)
            spec.replace(star, 1, std::to_string(static_cast<s32>(fetch(4))));
        char kind = format[end];
        bool wide = spec.find("ll") != std::string::npos || spec.find('l') != std::string::npos ||
                    spec.find('z') != std::string::npos || spec.find('j') != std::string::npos;
        if (strchr("fFeEgGaA", kind)) {
            u64 bits = fetch(8);
            double v;
            memcpy(&v, &bits, 8);
            char text[512];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(text, sizeof text, spec.c_str(), v);
            out += text;
        } else if (kind == 's') {
            out += text_at(w, fetch(8));
        } else if (kind == 'p') {
            out += fault_format("0x%llx", static_cast<unsigned long long>(fetch(8)));
        } else {
            char text[512];
            if (wide)
                snprintf(text, sizeof text, spec.c_str(), static_cast<long long>(fetch(8)));
            else
                snprintf(text, sizeof text, spec.c_str(), static_cast<int>(fetch(4)));
#pragma GCC diagnostic pop
            out += text;
        }
        k = end;
    }
    return out;
}

} // namespace

/* i.imm, imm2: where the arguments of the call lie in local memory; n 2: __assertfail(condition, file, line, ...). */
void warp_print(Warp &w, const Instr &i, u32 mask)
{
    for (int l = 0; l < LANES; ++l) {
        if (!(mask >> l & 1)) continue;
        if (i.n == 2) {
            std::string what = text_at(w, local_word(w, l, i.imm)), file = text_at(w, local_word(w, l, i.imm2));
            u32 line = static_cast<u32>(local_word(w, l, i.table));
            warp_fault(w, i, l, cudaErrorAssert, "assertion '%s' failed at %s:%u", what.c_str(), file.c_str(), line);
        }
        u64 arguments = local_word(w, l, i.imm2);
        if (arguments >> WINDOW_BITS == WINDOW_LOCAL >> WINDOW_BITS) arguments -= WINDOW_LOCAL;
        std::string out = formatted(w, l, text_at(w, local_word(w, l, i.imm)), static_cast<s64>(arguments));
        fputs(out.c_str(), stdout);
        if (i.target >= 0) {
            size_t at = static_cast<size_t>(l) * w.local_bytes + static_cast<size_t>(i.target);
            s32 n = static_cast<s32>(out.size());
            memcpy(w.local + at, &n, 4);
            memset(w.local_state + at, BYTE_WRITTEN, 4);
        }
    }
}

} // namespace vgpu
