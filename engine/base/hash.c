/*
 * hash.c - SHA-256 by libcrypto. Its older interface: the one-shot SHA256() looks the algorithm up in a
 * provider first, which costs as much as hashing 200 files.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "engine/base/hash.h"

#include <openssl/sha.h>

void mb_sha256_hex(const void *data, size_t len, char hex[65])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char md[SHA256_DIGEST_LENGTH];
    SHA256_CTX ctx;
    SHA256_Init(&ctx);
    SHA256_Update(&ctx, data, len);
    SHA256_Final(md, &ctx);
    for (size_t i = 0; i < sizeof md; i++) {
        hex[2 * i] = digits[md[i] >> 4];
        hex[2 * i + 1] = digits[md[i] & 15];
    }
    hex[64] = '\0';
}
