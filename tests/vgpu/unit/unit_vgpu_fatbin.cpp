/* Fatbins put together by hand, field by field: which image is taken, how it is read, what is refused in which words.
 */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>
#include <zstd.h>
extern "C" {
#include <cmocka.h>
}
#include "fatbin.h"

namespace
{

struct Image {
    uint16_t kind; /* 1 PTX, 2 machine code */
    uint32_t arch;
    uint64_t flags;
    std::string payload;
    uint64_t plain_bytes; /* when compressed */
};

template <class T> void put(std::vector<uint8_t> &v, size_t at, T x)
{
    memcpy(v.data() + at, &x, sizeof x);
}

struct Fatbin {
    std::vector<uint8_t> data;
    struct {
        uint32_t magic, version;
        const void *data;
        void *unused;
    } wrapper;

    explicit Fatbin(const std::vector<Image> &images, uint32_t magic = 0xBA55ED50) : data(16)
    {
        for (const Image &image : images) {
            size_t begin = data.size(), header = image.kind == 1 ? 80 : 64,
                   padded = (image.payload.size() + 1 + 7) / 8 * 8;
            data.resize(begin + header + padded);
            put<uint16_t>(data, begin, image.kind);
            put<uint16_t>(data, begin + 2, 0x0101);
            put<uint32_t>(data, begin + 4, static_cast<uint32_t>(header));
            put<uint64_t>(data, begin + 8, padded);
            put<uint32_t>(data, begin + 16, image.plain_bytes ? static_cast<uint32_t>(image.payload.size()) : 0);
            put<uint32_t>(data, begin + 28, image.arch);
            put<uint64_t>(data, begin + 40, image.flags);
            put<uint64_t>(data, begin + 56, image.plain_bytes);
            memcpy(data.data() + begin + header, image.payload.data(), image.payload.size());
        }
        put<uint32_t>(data, 0, magic);
        put<uint16_t>(data, 4, 1);
        put<uint16_t>(data, 6, 16);
        put<uint64_t>(data, 8, data.size() - 16);
        wrapper = {0x466243b1, 1, data.data(), nullptr};
    }

    std::string ptx(unsigned arch, std::string *why = nullptr)
    {
        std::string reason;
        unsigned found = 0;
        std::string text = vgpu::fatbin_ptx(&wrapper, arch, &found, &reason);
        if (why) *why = reason;
        return text;
    }
};

std::string compressed(const std::string &text)
{
    std::string out(ZSTD_compressBound(text.size()), '\0');
    out.resize(ZSTD_compress(&out[0], out.size(), text.data(), text.size(), 3));
    return out;
}

/* The newest that is not newer than the device; when all are newer, the oldest. Machine code is passed over. */
void the_image_that_suits_is_taken(void **)
{
    Fatbin f({{2, 80, 0x11, "machine code", 0},
              {1, 75, 0x11, "ptx 75", 0},
              {1, 90, 0x11, "ptx 90", 0},
              {1, 80, 0x11, "ptx 80", 0}});
    assert_string_equal(f.ptx(80).c_str(), "ptx 80");
    assert_string_equal(f.ptx(89).c_str(), "ptx 80");
    assert_string_equal(f.ptx(120).c_str(), "ptx 90");
    assert_string_equal(f.ptx(75).c_str(), "ptx 75");
    assert_string_equal(f.ptx(70).c_str(), "ptx 75");
}

void compressed_text_is_read(void **)
{
    std::string text;
    for (int k = 0; k < 1000; ++k)
        text += "line " + std::to_string(k) + "\n";
    Fatbin f({{1, 80, 0x8011, compressed(text), text.size()}});
    assert_string_equal(f.ptx(80).c_str(), text.c_str());
}

void what_cannot_be_read_is_told(void **)
{
    std::string why;
    assert_true(Fatbin({{2, 80, 0x11, "machine code", 0}}).ptx(80, &why).empty());
    assert_non_null(strstr(why.c_str(), "no PTX, only machine code"));
    assert_true(Fatbin({{1, 80, 0x2011, "lz4", 100}}).ptx(80, &why).empty());
    assert_non_null(strstr(why.c_str(), "LZ4"));
    assert_true(Fatbin({{1, 80, 0x8011, "not zstd at all", 100}}).ptx(80, &why).empty());
    assert_non_null(strstr(why.c_str(), "zstd:"));
    assert_true(Fatbin({{1, 80, 0x11, "ptx", 0}}, 0xBA55ED51).ptx(80, &why).empty());
    assert_non_null(strstr(why.c_str(), "magic"));
    Fatbin f({{1, 80, 0x11, "ptx", 0}});
    f.wrapper.magic++;
    assert_true(f.ptx(80, &why).empty());
    assert_non_null(strstr(why.c_str(), "wrapper"));
}

} // namespace

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_image_that_suits_is_taken),
                                       cmocka_unit_test(compressed_text_is_read),
                                       cmocka_unit_test(what_cannot_be_read_is_told)};
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
