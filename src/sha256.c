#include "sha256.h"

#include <openssl/evp.h>
#include <stdio.h>

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
