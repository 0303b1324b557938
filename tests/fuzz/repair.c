#include "repair.h"

#include <stdlib.h>
#include <string.h>

enum { LENGTH = 8 };

size_t repair_header(uint8_t *data, size_t n, size_t room, void (*set)(json_t *header, const uint8_t *body, size_t n_body))
{
    uint64_t n_header = 0;
    if (n < LENGTH) return n;
    for (int i = LENGTH - 1; i >= 0; i--) n_header = n_header << 8 | data[i];
    if (n_header > n - LENGTH) return n;
    json_t *header = json_loadb((const char *)data + LENGTH, (size_t)n_header, JSON_DISABLE_EOF_CHECK, NULL);
    if (!json_is_object(header)) {
        json_decref(header);
        return n;
    }
    const size_t n_body = n - LENGTH - (size_t)n_header;
    set(header, data + LENGTH + n_header, n_body);
    char        *text = json_dumps(header, JSON_COMPACT);
    const size_t n_text = text == NULL ? 0 : strlen(text), padded = (n_text + 7) & ~(size_t)7;
    if (text != NULL && LENGTH + padded + n_body <= room) {
        memmove(data + LENGTH + padded, data + LENGTH + n_header, n_body);
        memset(data + LENGTH, ' ', padded);
        memcpy(data + LENGTH, text, n_text);
        for (int i = 0; i < LENGTH; i++) data[i] = (uint8_t)((uint64_t)padded >> (8 * i));
        n = LENGTH + padded + n_body;
    }
    free(text);
    json_decref(header);
    return n;
}

const uint8_t *repair_tensor(const json_t *header, const char *name, const uint8_t *body, size_t n_body, size_t *n)
{
    const json_t     *place = json_object_get(json_object_get(header, name), "data_offsets");
    const json_int_t  from = json_integer_value(json_array_get(place, 0)), to = json_integer_value(json_array_get(place, 1));
    if (from < 0 || to <= from || (uint64_t)to > n_body) return NULL;
    *n = (size_t)(to - from);
    return body + from;
}

void repair_note(json_t *header, const char *key, const char *text)
{
    json_object_set_new(json_object_get(header, "__metadata__"), key, json_string(text));
}
