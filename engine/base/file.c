/*
 * file.c - files and folders. Blocking calls, outside of the event loop: they are made at start-up,
 * between steps, or for files that the user named.
 */
#include "engine/base/file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FIRST_READ = 16 * 1024, /* most migrations fit: one read for the text, one that finds the end */
    MAX_DEPTH = 200         /* of remove_tree: each level holds a descriptor */
};

static int read_all(int fd, mb_buf *out)
{
    size_t chunk = FIRST_READ;
    for (;;) {
        char *at = mb_buf_reserve(out, chunk);
        ssize_t got = read(fd, at, chunk);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            out->data[out->len] = '\0';
            return errno;
        }
        out->len += (size_t)got;
        out->data[out->len] = '\0';
        if (got == 0)
            return 0;
        if ((size_t)got == chunk && chunk < 1024 * 1024)
            chunk *= 2;
    }
}

int mb_file_read_at(int dirfd, const char *name, mb_buf *out)
{
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return errno;
    int code = read_all(fd, out);
    close(fd);
    return code;
}

int mb_file_read(const char *path, mb_buf *out)
{
    return mb_file_read_at(AT_FDCWD, path, out);
}

int mb_file_open_dir(const char *path, int *fd)
{
    *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *fd < 0 ? errno : 0;
}

int mb_file_write_fd(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t put = write(fd, at, len);
        if (put >= 0) {
            at += put;
            len -= (size_t)put;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            if (poll(&wait, 1, -1) < 0 && errno != EINTR)
                return errno;
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

/* For what is no regular file (a terminal, /dev/null, a FIFO), where replacing would be wrong. */
static int write_through(const char *path, int flags, const void *data, size_t len)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | flags, 0666);
    if (fd < 0)
        return errno;
    int code = mb_file_write_fd(fd, data, len);
    if (close(fd) < 0 && code == 0)
        code = errno;
    return code;
}

int mb_file_append(const char *path, const void *data, size_t len)
{
    return write_through(path, O_APPEND | O_CREAT, data, len);
}

/* The folder part of a path, as malloc'd text. */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return mb_strdup(".");
    if (slash == path)
        return mb_strdup("/");
    return mb_strndup(path, (size_t)(slash - path));
}

static int sync_parent(const char *path)
{
    char *parent = parent_of(path);
    int fd = -1;
    int code = mb_file_open_dir(parent, &fd);
    free(parent);
    if (code)
        return code;
    /* EINVAL and ENOTSUP: file systems that have no such thing as syncing a folder. */
    if (fsync(fd) < 0 && errno != EINVAL && errno != ENOTSUP)
        code = errno;
    close(fd);
    return code;
}

static int random_name(const char *path, char **out)
{
    uint32_t noise;
    int code = mb_random_bytes(&noise, sizeof noise);
    if (code == 0)
        *out = mb_sprintf("%s.%08x.tmp", path, noise);
    return code;
}

/* Gives the finished temporary file its name, which must still be free. */
static int rename_exclusive(const char *temp, const char *path)
{
    if (renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return errno;
    /* a file system without RENAME_NOREPLACE: link() fails with EEXIST just as well */
    if (link(temp, path) < 0)
        return errno;
    unlink(temp);
    return 0;
}

static int write_replacing(const char *path, mode_t mode, const void *data, size_t len,
                           unsigned flags)
{
    char *temp = NULL;
    int fd = -1;
    int code = random_name(path, &temp);
    if (code)
        return code;
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0) {
        code = errno;
        goto done;
    }
    if (mode && fchmod(fd, mode) < 0)
        code = errno;
    if (code == 0)
        code = mb_file_write_fd(fd, data, len);
    if (code == 0 && fsync(fd) < 0)
        code = errno;
    if (close(fd) < 0 && code == 0)
        code = errno;
    if (code == 0 && (flags & MB_FILE_EXCLUSIVE))
        code = rename_exclusive(temp, path);
    else if (code == 0 && rename(temp, path) < 0)
        code = errno;
    if (code)
        unlink(temp);
    else
        code = sync_parent(path);
done:
    free(temp);
    return code;
}

int mb_file_write(const char *path, const void *data, size_t len, unsigned flags)
{
    struct stat st;
    mode_t mode = 0;
    char *real = NULL;
    int code = 0;

    if (lstat(path, &st) == 0) {
        if (flags & MB_FILE_EXCLUSIVE)
            return EEXIST;
        if (S_ISLNK(st.st_mode)) {
            real = realpath(path, NULL);
            if (!real)
                return errno;
            path = real;
            if (stat(path, &st) < 0) {
                code = errno;
                goto done;
            }
        }
        if (S_ISDIR(st.st_mode)) {
            code = EISDIR;
            goto done;
        }
        if (!S_ISREG(st.st_mode)) {
            code = write_through(path, 0, data, len);
            goto done;
        }
        mode = st.st_mode & 07777;
    } else if (errno != ENOENT) {
        return errno;
    }
    code = write_replacing(path, mode, data, len, flags);
done:
    free(real);
    return code;
}

static mb_file_type type_of_mode(mode_t mode)
{
    if (S_ISREG(mode))
        return MB_FILE_REGULAR;
    if (S_ISDIR(mode))
        return MB_FILE_DIR;
    return S_ISLNK(mode) ? MB_FILE_LINK : MB_FILE_OTHER;
}

static mb_file_type type_of_entry(int dirfd, const struct dirent *entry)
{
    switch (entry->d_type) {
    case DT_REG:
        return MB_FILE_REGULAR;
    case DT_DIR:
        return MB_FILE_DIR;
    case DT_LNK:
        return MB_FILE_LINK;
    case DT_UNKNOWN: {
        struct stat st;
        if (fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            return type_of_mode(st.st_mode);
        return MB_FILE_OTHER;
    }
    default:
        return MB_FILE_OTHER;
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const mb_file_entry *)a)->name, ((const mb_file_entry *)b)->name);
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

int mb_file_list_dir(const char *path, mb_file_list *list)
{
    DIR *dir = opendir(path);
    if (!dir)
        return errno;
    size_t cap = 0;
    int code = 0;
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            code = errno;
            break;
        }
        if (is_dot(entry->d_name))
            continue;
        if (list->count == cap) {
            cap = cap ? cap * 2 : 64;
            list->entries = mb_realloc(list->entries, cap * sizeof *list->entries);
        }
        list->entries[list->count++] =
            (mb_file_entry){mb_strdup(entry->d_name), type_of_entry(dirfd(dir), entry)};
    }
    closedir(dir);
    if (code)
        mb_file_list_free(list);
    else if (list->count > 1)
        qsort(list->entries, list->count, sizeof *list->entries, by_name);
    return code;
}

void mb_file_list_free(mb_file_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->entries[i].name);
    free(list->entries);
    *list = (mb_file_list)MB_FILE_LIST_INIT;
}

int mb_file_stat_path(const char *path, mb_file_stat *out)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return errno;
    *out = (mb_file_stat){
        .type = type_of_mode(st.st_mode),
        .size = (int64_t)st.st_size,
        .mtime = (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec / 1e9,
        .mode = st.st_mode & 07777,
        .uid = st.st_uid,
        .gid = st.st_gid,
    };
    return 0;
}

static int make_dir(const char *path, mode_t mode)
{
    if (mkdir(path, mode) == 0)
        return 0;
    int code = errno;
    struct stat st;
    if (code == EEXIST && stat(path, &st) == 0)
        return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
    return code;
}

int mb_file_mkdirs(const char *path, mode_t mode)
{
    int code = make_dir(path, mode);
    if (code != ENOENT || !*path)
        return code;
    char *part = mb_strdup(path);
    code = 0;
    for (char *at = part + 1; *at && code == 0; at++) {
        if (*at != '/')
            continue;
        *at = '\0';
        code = make_dir(part, 0777);
        *at = '/';
    }
    if (code == 0)
        code = make_dir(part, mode);
    free(part);
    return code;
}

int mb_file_remove(const char *path)
{
    return remove(path) < 0 ? errno : 0;
}

static int empty_dir(int parent, const char *name, int depth)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno;
    if (depth > MAX_DEPTH) {
        close(fd);
        return ELOOP;
    }
    DIR *dir = fdopendir(fd);
    if (!dir) {
        int code = errno;
        close(fd);
        return code;
    }
    int code = 0;
    while (code == 0) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            code = errno;
            break;
        }
        if (is_dot(entry->d_name))
            continue;
        bool is_dir = type_of_entry(fd, entry) == MB_FILE_DIR;
        if (is_dir)
            code = empty_dir(fd, entry->d_name, depth + 1);
        /* ENOENT: someone else removes too, and what matters is that it is gone */
        if (code == 0 && unlinkat(fd, entry->d_name, is_dir ? AT_REMOVEDIR : 0) < 0 &&
            errno != ENOENT)
            code = errno;
    }
    closedir(dir);
    return code;
}

int mb_file_remove_tree(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno;
    if (!S_ISDIR(st.st_mode))
        return unlink(path) < 0 ? errno : 0;
    int code = empty_dir(AT_FDCWD, path, 0);
    if (code == 0 && rmdir(path) < 0)
        code = errno;
    return code;
}

int mb_file_tempdir(const char *prefix, char **path)
{
    const char *base = "";
    const char *slash = "";
    if (!strchr(prefix, '/')) {
        base = getenv("TMPDIR");
        if (!base || !*base)
            base = "/tmp";
        slash = "/";
    }
    char *name = mb_sprintf("%s%s%sXXXXXX", base, slash, prefix);
    if (!mkdtemp(name)) {
        int code = errno;
        free(name);
        return code;
    }
    *path = name;
    return 0;
}

int mb_random_bytes(void *out, size_t len)
{
    unsigned char *at = out;
    while (len > 0) {
        ssize_t got = getrandom(at, len, 0);
        if (got < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        at += got;
        len -= (size_t)got;
    }
    return 0;
}

const char *mb_errno_name(int code)
{
    const char *name = strerrorname_np(code);
    return name ? name : "EUNKNOWN";
}

char *mb_errno_text(int code, char *text, size_t size)
{
    char work[128];
    snprintf(text, size, "%s", strerror_r(code, work, sizeof work));
    /* "No such file" reads on inside our sentences as "no such file"; "RPC ..." stays as it is */
    if (isupper((unsigned char)text[0]) && !isupper((unsigned char)text[1]))
        text[0] = (char)tolower((unsigned char)text[0]);
    return text;
}
