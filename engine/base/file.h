/*
 * file.h - files and folders: whole-file reads, atomic writes, sorted listings.
 *
 * Every function that can fail returns 0 or an errno value (never -1, never through the global
 * errno), so that callers can match it and say it in their own words. Blocking; nothing here keeps
 * state, any thread may call it.
 */
#ifndef MB_FILE_H
#define MB_FILE_H

#include <sys/types.h>

#include "engine/base/base.h"
#include "engine/base/buf.h"

typedef enum mb_file_type {
    MB_FILE_REGULAR,
    MB_FILE_DIR,
    MB_FILE_LINK, /* a symbolic link that was not followed */
    MB_FILE_OTHER
} mb_file_type;

typedef struct mb_file_entry {
    char *name;
    mb_file_type type;
} mb_file_entry;

/* A folder's content, bytewise sorted by name, without "." and "..". */
typedef struct mb_file_list {
    mb_file_entry *entries;
    size_t count;
} mb_file_list;

#define MB_FILE_LIST_INIT {NULL, 0}

typedef struct mb_file_stat {
    mb_file_type type;
    int64_t size;  /* bytes */
    double mtime;  /* seconds since 1970, with fraction */
    unsigned mode; /* permission bits, 07777 */
    unsigned uid;
    unsigned gid;
} mb_file_stat;

/* mb_file_write: fail with EEXIST instead of replacing what is there. */
#define MB_FILE_EXCLUSIVE 1u

/* Adds the whole file to `out`. On failure `out` may hold a part of it. */
MB_NODISCARD int mb_file_read(const char *path, mb_buf *out);
/* The same with a name relative to an open folder; `dirfd` may be AT_FDCWD. */
MB_NODISCARD int mb_file_read_at(int dirfd, const char *name, mb_buf *out);
/* Opens a folder for mb_file_read_at; the caller closes *fd. */
MB_NODISCARD int mb_file_open_dir(const char *path, int *fd);

/* Replaces or makes a file in one step: a reader sees the old content or the new, never a part,
 * also after a crash (temporary file, fsync, rename, fsync of the folder). An existing file keeps
 * its permission bits, a symbolic link is written through, a device or FIFO is written to. */
MB_NODISCARD int mb_file_write(const char *path, const void *data, size_t len, unsigned flags);
/* Adds to the end of a file, made if missing. */
MB_NODISCARD int mb_file_append(const char *path, const void *data, size_t len);
/* Writes all bytes; goes on after EINTR, waits when a non-blocking descriptor is full. */
MB_NODISCARD int mb_file_write_fd(int fd, const void *data, size_t len);

/* Fills `list` (MB_FILE_LIST_INIT); the caller frees it with mb_file_list_free(). */
MB_NODISCARD int mb_file_list_dir(const char *path, mb_file_list *list);
void mb_file_list_free(mb_file_list *list);
/* What a path leads to (links are followed). */
MB_NODISCARD int mb_file_stat_path(const char *path, mb_file_stat *out);

/* Makes a folder and its missing parents; one that is there already is fine. */
MB_NODISCARD int mb_file_mkdirs(const char *path, mode_t mode);
/* Removes a file, a link or an empty folder. */
MB_NODISCARD int mb_file_remove(const char *path);
/* Removes a folder with all it holds (links are removed, not followed), or a single file. */
MB_NODISCARD int mb_file_remove_tree(const char *path);
/* Makes a new folder that only its owner may enter: `prefix` with six random characters behind it;
 * a prefix without a slash goes into $TMPDIR or /tmp. *path is the caller's. */
MB_NODISCARD int mb_file_tempdir(const char *prefix, char **path);

/* Fills `out` with random bytes of the kernel. */
MB_NODISCARD int mb_random_bytes(void *out, size_t len);

/* "ENOENT" and the like; never NULL. */
const char *mb_errno_name(int code);
/* "no such file or directory": strerror in lower case, into `text`. Returns `text`. */
char *mb_errno_text(int code, char *text, size_t size);

#endif
