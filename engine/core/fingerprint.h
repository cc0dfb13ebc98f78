/*
 * fingerprint.h - one hash that says what a set of migration files is.
 *
 * A run with nothing to do is the most frequent of all. It is told from others by comparing this hash of
 * the folders with the one the journal's fingerprint() makes of a target's applied migrations; only
 * when they differ are files and rows held against each other one by one.
 */
#ifndef MB_FINGERPRINT_H
#define MB_FINGERPRINT_H

#include "engine/base/base.h"
#include "engine/loop/task.h"

/* A computation in a worker thread. `wait` is finished in the loop's thread when it is over. */
typedef struct mb_fingerprint {
    mb_wait wait;
    char **folders; /* ends with NULL; owned */
    char hex[65];   /* SHA-256 over "id checksum\n" of every migration by version; "" when the folders
                       hold anything out of the ordinary, which a full scan is to look at */
    bool orphaned;  /* nobody waits any more: the struct frees itself */
} mb_fingerprint;

/* Starts; `folders` is copied. Free with mb_fingerprint_free(), at any time. */
mb_fingerprint *mb_fingerprint_start(mb_sched *sched, const char *const *folders);
void mb_fingerprint_free(mb_fingerprint **fingerprint);

#endif
