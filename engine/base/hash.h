/*
 * hash.h - SHA-256 by libcrypto.
 */
#ifndef MB_HASH_H
#define MB_HASH_H

#include "engine/base/base.h"

/* Writes the 64 lower-case hex digits and a NUL into `hex`. */
void mb_sha256_hex(const void *data, size_t len, char hex[65]);

#endif
