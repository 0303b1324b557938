#include "file_kind.h"

#include <string.h>
#include <strings.h>

typedef struct {
    const char *magic;
    size_t n;
    const char *kind;
} known_kind;

#define MAGIC(text) (text), sizeof(text) - 1

static const known_kind kinds[] = {
    {MAGIC("version https://git-lfs"),
     "a Git LFS pointer, not the file itself: run `git lfs pull` in the model folder, or download it anew"},
    {MAGIC("version https://hawser"), "an old Git LFS pointer, not the file itself: run `git lfs pull`"},
    {MAGIC("GGUF"), "a GGUF file: quantised GGUF models are not supported, only safetensors in a diffusers folder"},
    {MAGIC("PK\003\004"), "a PyTorch pickle (zip) under another name: pickles are not read, only safetensors"},
    {MAGIC("\200\002"), "a PyTorch pickle under another name: pickles are not read, only safetensors"},
    {MAGIC("\037\213"), "a gzip archive: unpack it first"},
    {MAGIC("\211HDF"), "an HDF5 file (TensorFlow weights): only safetensors are read"},
    {MAGIC("<!doctype html"), "an HTML page: the download saved a web page, perhaps a log-in or an error"},
    {MAGIC("<html"), "an HTML page: the download saved a web page, perhaps a log-in or an error"},
    {MAGIC("<?xml"), "an XML page: the download saved an error message"},
};

const char *file_kind(const void *head, size_t n)
{
    const char *text = head;
    if (n > FILE_KIND_HEAD) n = FILE_KIND_HEAD;
    /* A web page may begin with blank lines; no other kind begins with a blank. */
    while (n > 0 && memchr(" \t\r\n", *text, 4) != NULL) {
        text++;
        n--;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (n >= kinds[i].n && strncasecmp(text, kinds[i].magic, kinds[i].n) == 0) return kinds[i].kind;
    }
    return NULL;
}
