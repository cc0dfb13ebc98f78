/*
 * fingerprint.c - hashing the migration folders in a worker thread.
 *
 * Knows what an ordinary migration file is called (lua/moonbird/migration/name.lua decides what to say of
 * others): digits, "_", snake_case, ".sql" or ".lua". On anything else it gives up, which costs a full
 * scan and nothing more.
 */
#include "engine/core/fingerprint.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/hash.h"

#define MAX_DIGITS 18

typedef struct item {
    uint64_t version;
    char *name; /* of the file; its first id_len bytes are the id */
    size_t id_len;
    char checksum[65];
} item;

typedef struct items {
    item *list;
    size_t count;
    size_t cap;
} items;

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), tail = strlen(end);
    return len >= tail && !strcmp(text + len - tail, end);
}

/* The length of the id, or 0 when this is not the name of a migration. */
static size_t parse_name(const char *name, uint64_t *version)
{
    size_t i = 0;
    *version = 0;
    for (; name[i] >= '0' && name[i] <= '9'; i++)
        *version = *version * 10 + (uint64_t)(name[i] - '0');
    if (i == 0 || i > MAX_DIGITS || name[i] != '_' || !is_word(name[i + 1]) || name[i + 1] == '_')
        return 0;
    for (i++; is_word(name[i]); i++)
        ;
    return !strcmp(name + i, ".sql") || !strcmp(name + i, ".lua") ? i : 0;
}

static bool is_beside(const struct dirent *entry)
{
    return entry->d_name[0] == '.' || entry->d_type == DT_DIR || ends_with(entry->d_name, ".md") ||
           ends_with(entry->d_name, ".json");
}

static item *add_item(items *all)
{
    if (all->count == all->cap) {
        all->cap = all->cap ? all->cap * 2 : 256;
        all->list = mb_realloc(all->list, all->cap * sizeof *all->list);
    }
    return &all->list[all->count++];
}

/* A short read of a regular file is its end: one call where mb_file_read_at() needs two. */
static bool read_small(int dirfd, const char *name, mb_buf *text)
{
    enum { ROOM = 64 * 1024 };
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return false;
    mb_buf_clear(text);
    ssize_t got = read(fd, mb_buf_reserve(text, ROOM), ROOM);
    close(fd);
    if (got == ROOM)
        return mb_file_read_at(dirfd, name, text) == 0;
    text->len = got > 0 ? (size_t)got : 0;
    return got >= 0;
}

/* Notes a migration's name; its content is hashed later. False: nothing this file knows about. */
static bool add_name(items *all, const struct dirent *entry)
{
    uint64_t version;
    size_t id_len = parse_name(entry->d_name, &version);
    if (!id_len || entry->d_type != DT_REG)
        return !id_len && is_beside(entry);
    item *next = add_item(all);
    next->version = version;
    next->name = mb_strdup(entry->d_name);
    next->id_len = id_len;
    return true;
}

typedef struct part {
    item *list;
    size_t count;
    int dirfd;
    bool ok;
} part;

static void *hash_part(void *arg)
{
    part *self = arg;
    mb_buf text = MB_BUF_INIT;
    self->ok = true;
    for (size_t i = 0; i < self->count && self->ok; i++) {
        self->ok = read_small(self->dirfd, self->list[i].name, &text);
        if (self->ok)
            mb_sha256_hex(text.data, text.len, self->list[i].checksum);
    }
    mb_buf_free(&text);
    return NULL;
}

/* Reading is system calls, and two threads make them in two thirds of the time; for a few files a thread
 * costs more than it saves. */
static bool hash_items(item *list, size_t count, int dirfd)
{
    enum { WORTH_A_THREAD = 1000 };
    size_t half = count >= WORTH_A_THREAD ? count / 2 : 0;
    part other = {list, half, dirfd, true};
    part own = {list + half, count - half, dirfd, true};
    pthread_t thread;
    bool threaded = half && pthread_create(&thread, NULL, hash_part, &other) == 0;
    hash_part(&own);
    if (threaded)
        pthread_join(thread, NULL);
    else
        hash_part(&other);
    return own.ok && other.ok;
}

static bool add_folder(items *all, const char *folder)
{
    size_t first = all->count;
    DIR *dir = opendir(folder);
    bool ok = dir != NULL;
    const struct dirent *entry;
    while (ok && (entry = readdir(dir)))
        ok = add_name(all, entry);
    if (ok)
        ok = hash_items(all->list + first, all->count - first, dirfd(dir));
    if (dir)
        closedir(dir);
    return ok;
}

static int by_version(const void *a, const void *b)
{
    uint64_t left = ((const item *)a)->version, right = ((const item *)b)->version;
    return left < right ? -1 : left > right;
}

static bool unique(const items *all)
{
    for (size_t i = 1; i < all->count; i++)
        if (all->list[i].version == all->list[i - 1].version)
            return false;
    return true;
}

static void work(void *arg)
{
    mb_fingerprint *self = arg;
    items all = {NULL, 0, 0};
    bool ok = true;
    for (size_t i = 0; ok && self->folders[i]; i++)
        ok = add_folder(&all, self->folders[i]);
    if (all.count)
        qsort(all.list, all.count, sizeof *all.list, by_version);
    if (ok && unique(&all)) {
        mb_buf text = MB_BUF_INIT;
        for (size_t i = 0; i < all.count; i++) {
            mb_buf_add(&text, all.list[i].name, all.list[i].id_len);
            mb_buf_addc(&text, ' ');
            mb_buf_adds(&text, all.list[i].checksum);
            mb_buf_addc(&text, '\n');
        }
        mb_sha256_hex(text.data ? text.data : "", text.len, self->hex);
        mb_buf_free(&text);
    }
    for (size_t i = 0; i < all.count; i++)
        free(all.list[i].name);
    free(all.list);
}

static void destroy(mb_fingerprint *self)
{
    for (size_t i = 0; self->folders[i]; i++)
        free(self->folders[i]);
    free(self->folders);
    free(self);
}

static void done(void *arg)
{
    mb_fingerprint *self = arg;
    if (self->orphaned)
        destroy(self);
    else
        mb_wait_finish(&self->wait);
}

mb_fingerprint *mb_fingerprint_start(mb_sched *sched, const char *const *folders)
{
    mb_fingerprint *self = mb_calloc(1, sizeof *self);
    size_t count = 0;
    while (folders[count])
        count++;
    self->folders = mb_calloc(count + 1, sizeof *self->folders);
    for (size_t i = 0; i < count; i++)
        self->folders[i] = mb_strdup(folders[i]);
    mb_wait_begin(&self->wait);
    mb_work_run(mb_sched_loop(sched), work, done, self);
    return self;
}

void mb_fingerprint_free(mb_fingerprint **fingerprint)
{
    mb_fingerprint *self = *fingerprint;
    *fingerprint = NULL;
    if (!self)
        return;
    if (self->wait.done)
        destroy(self);
    else
        self->orphaned = true; /* the worker still writes into it */
}
