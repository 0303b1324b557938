#include "fatbin.h"

#include <cstdint>
#include <cstring>
#include <zstd.h>

namespace vgpu
{
namespace
{

/* Layouts read off nvcc 13's output; all little-endian. */
enum : uint32_t { WRAPPER_MAGIC = 0x466243b1, FATBIN_MAGIC = 0xBA55ED50 };
enum : uint16_t { KIND_PTX = 1 };
enum : uint64_t { FLAG_LZ4 = 0x2000, FLAG_ZSTD = 0x8000 };

template <class T> T at(const uint8_t *p, size_t offset)
{
    T x;
    memcpy(&x, p + offset, sizeof x);
    return x;
}

} // namespace

std::string fatbin_ptx(const void *wrapper, unsigned arch, unsigned *found, std::string *why)
{
    const uint8_t *w = static_cast<const uint8_t *>(wrapper);
    if (at<uint32_t>(w, 0) != WRAPPER_MAGIC) {
        *why = "the fatbin's wrapper has another magic number";
        return std::string();
    }
    const uint8_t *data = at<const uint8_t *>(w, 8);
    if (at<uint32_t>(data, 0) != FATBIN_MAGIC) {
        *why = "the fatbin has another magic number";
        return std::string();
    }
    uint64_t offset = at<uint16_t>(data, 6), end = offset + at<uint64_t>(data, 8);
    const uint8_t *best = nullptr;
    unsigned best_arch = 0;
    while (offset < end) {
        const uint8_t *entry = data + offset;
        unsigned entry_arch = at<uint32_t>(entry, 28);
        bool suits = entry_arch <= arch, best_suits = best && best_arch <= arch;
        if (at<uint16_t>(entry, 0) == KIND_PTX &&
            (!best || (suits && !best_suits) || (suits && best_suits && entry_arch > best_arch) ||
             (!suits && !best_suits && entry_arch < best_arch)))
            best = entry, best_arch = entry_arch;
        offset += at<uint32_t>(entry, 4) + at<uint64_t>(entry, 8);
    }
    if (!best) {
        *why = "the executable holds no PTX, only machine code: build it with a compute_XX target";
        return std::string();
    }
    *found = best_arch;
    const char *payload = reinterpret_cast<const char *>(best) + at<uint32_t>(best, 4);
    uint64_t flags = at<uint64_t>(best, 40);
    if (flags & FLAG_ZSTD) {
        std::string text(at<uint64_t>(best, 56), '\0');
        size_t n = ZSTD_decompress(&text[0], text.size(), payload, at<uint32_t>(best, 16));
        if (ZSTD_isError(n)) {
            *why = std::string("zstd: ") + ZSTD_getErrorName(n);
            return std::string();
        }
        text.resize(strnlen(text.data(), n));
        return text;
    }
    if (flags & FLAG_LZ4) {
        *why = "the PTX is compressed with LZ4, as nvcc before 12.4 did";
        return std::string();
    }
    return std::string(payload, strnlen(payload, at<uint64_t>(best, 8)));
}

} // namespace vgpu
