#include "yaml_text.h"

#include <string.h>

size_t yaml_text_decode(const char *text, size_t n_bytes, unsigned *point)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000}; /* by length: shorter forms must be used below */
    unsigned char first = (unsigned char)text[0];
    size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (length == 0 || length > n_bytes) return 0;
    unsigned value = length == 1 ? first : first & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        unsigned char next = (unsigned char)text[i];
        if ((next & 0xc0u) != 0x80u) return 0;
        value = value << 6 | (next & 0x3fu);
    }
    if (value < least[length] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) return 0;
    *point = value;
    return length;
}

/* The characters that YAML 1.1 calls printable, plus tab and line breaks. */
static bool allowed(unsigned point)
{
    if (point < 0x20) return point == '\t' || point == '\n' || point == '\r';
    if (point < 0x7f || point == 0x85) return true;
    return point >= 0xa0 && point != 0xfeff && point != 0xfffe && point != 0xffff;
}

static bool is_utf16(const char *text, size_t n_bytes)
{
    if (n_bytes < 2) return false;
    if (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0) return true;
    return (text[0] == '\0') != (text[1] == '\0'); /* without a mark, ASCII in two bytes */
}

bool yaml_text_check(const char **text, size_t *n_bytes, mistakes *m)
{
    if (is_utf16(*text, *n_bytes)) {
        mistakes_add(m, 1, 1, "found UTF-16 text; allowed: UTF-8 (save the file as UTF-8)");
        return false;
    }
    if (*n_bytes >= 3 && memcmp(*text, "\xef\xbb\xbf", 3) == 0) {
        *text += 3;
        *n_bytes -= 3;
    }
    int line = 1, column = 1;
    for (size_t i = 0; i < *n_bytes;) {
        unsigned point = 0;
        size_t length = yaml_text_decode(*text + i, *n_bytes - i, &point);
        if (length == 0) {
            mistakes_add(m, line, column,
                         "found byte 0x%02X, which is not UTF-8; allowed: UTF-8 (save the file as UTF-8)",
                         (unsigned)(unsigned char)(*text)[i]);
            return false;
        }
        if (!allowed(point)) {
            mistakes_add(
                m, line, column,
                "found character U+%04X, which YAML forbids; allowed: printable characters (inside double quotes "
                "it can be written \\u%04X)",
                point, point);
            return false;
        }
        i += length;
        bool breaks = point == '\n' || (point == '\r' && !(i < *n_bytes && (*text)[i] == '\n'));
        line += breaks ? 1 : 0;
        column = breaks ? 1 : column + 1;
    }
    return true;
}
