#include "sha256.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/* An EVP_MD_CTX under a name of ours. */
static EVP_MD_CTX *context_of(sha256 *h)
{
    return (EVP_MD_CTX *)(void *)h;
}

status sha256_open(sha256 **out)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context == NULL || EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(context);
        return err_set(ST_NO_MEMORY, "SHA-256 does not start");
    }
    *out = (sha256 *)(void *)context;
    return ST_OK;
}

status sha256_add(sha256 *h, const void *data, size_t bytes)
{
    return EVP_DigestUpdate(context_of(h), data, bytes) == 1 ? ST_OK : err_set(ST_FAILED, "SHA-256 failed");
}

status sha256_finish(sha256 *h, char hex[SHA256_HEX])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int  n = 0;
    int           ok = EVP_DigestFinal_ex(context_of(h), digest, &n);
    sha256_close(h);
    if (ok != 1) return err_set(ST_FAILED, "SHA-256 failed");
    for (unsigned int i = 0; i < n; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    return ST_OK;
}

void sha256_close(sha256 *h)
{
    EVP_MD_CTX_free(context_of(h));
}

status sha256_of(const void *data, size_t bytes, char hex[SHA256_HEX])
{
    sha256 *h = NULL;
    status  st = sha256_open(&h);
    if (st != ST_OK) return st;
    st = sha256_add(h, data, bytes);
    if (st == ST_OK) return sha256_finish(h, hex);
    sha256_close(h);
    return st;
}

status sha256_of_file(const char *path, status bad, int64_t *n_bytes, char hex[SHA256_HEX])
{
    status  st = ST_OK;
    sha256 *h = NULL;
    int64_t all = 0;
    char    piece[65536];
    FILE   *file = fopen(path, "rbe");
    if (file == NULL) return err_set(bad, "%s: cannot be read: %s", path, strerror(errno));
    TRY(sha256_open(&h));
    for (size_t n; (n = fread(piece, 1, sizeof(piece), file)) > 0; all += (int64_t)n) TRY(sha256_add(h, piece, n));
    if (ferror(file)) {
        st = err_set(bad, "%s: cannot be read: %s", path, strerror(errno));
        goto fail;
    }
    st = sha256_finish(h, hex);
    h = NULL;
    if (st == ST_OK && n_bytes != NULL) *n_bytes = all;
fail:
    sha256_close(h);
    fclose(file);
    return st;
}
