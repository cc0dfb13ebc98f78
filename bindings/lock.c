/*
 * lock.c - advisory locks between processes: flock(2) on a file.
 *
 * The kernel releases such a lock when its holder ends, by kill -9 too, and children do not inherit
 * it (close-on-exec). Only non-blocking: who has to wait asks again after a sleep, so that the
 * scheduler goes on turning.
 */
#include "bindings/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"

#define LOCK "moonbird.lock"

typedef struct lock_box {
    int fd; /* -1 when closed */
} lock_box;

static int push_failure(lua_State *L, int code, const char *verb)
{
    char text[128];
    mb_errno_text(code, text, sizeof text);
    luaL_pushfail(L);
    lua_pushfstring(L, "cannot %s: %s", verb, text);
    lua_pushstring(L, mb_errno_name(code));
    return 3;
}

static lock_box *check(lua_State *L)
{
    lock_box *box = luaL_checkudata(L, 1, LOCK);
    luaL_argcheck(L, box->fd >= 0, 1, "lock is closed");
    return box;
}

int mbl_lock_open(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    lock_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->fd = -1;
    luaL_setmetatable(L, LOCK);
    box->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (box->fd < 0) {
        int code = errno;
        lua_pushfstring(L, "open lock file \"%s\"", path);
        return push_failure(L, code, lua_tostring(L, -1));
    }
    return 1;
}

/* lock:try("shared"|"exclusive") -> true when held now, false when another holder is in the way (a
 * lock held before in another mode is lost then), or nil, message, errno name. The errno ESTALE says
 * that the file was removed meanwhile: open it again. */
static int l_lock_try(lua_State *L)
{
    static const char *const names[] = {"shared", "exclusive", NULL};
    static const int modes[] = {LOCK_SH, LOCK_EX};
    lock_box *box = check(L);
    int mode = modes[luaL_checkoption(L, 2, NULL, names)];
    int rc;
    do
        rc = flock(box->fd, mode | LOCK_NB);
    while (rc < 0 && errno == EINTR);
    if (rc < 0 && errno != EWOULDBLOCK)
        return push_failure(L, errno, "lock");
    struct stat st;
    if (rc == 0 && fstat(box->fd, &st) == 0 && st.st_nlink == 0) {
        flock(box->fd, LOCK_UN);
        return push_failure(L, ESTALE, "lock");
    }
    lua_pushboolean(L, rc == 0);
    return 1;
}

/* lock:release(): gives the lock up, the file stays open */
static int l_lock_release(lua_State *L)
{
    flock(check(L)->fd, LOCK_UN);
    return 0;
}

/* lock:close(), __gc, __close: gives the lock up; may be called twice */
static int l_lock_close(lua_State *L)
{
    lock_box *box = luaL_checkudata(L, 1, LOCK);
    if (box->fd >= 0)
        close(box->fd);
    box->fd = -1;
    return 0;
}

void mbl_lock_register(lua_State *L)
{
    static const luaL_Reg methods[] = {{"try", l_lock_try},
                                       {"release", l_lock_release},
                                       {"close", l_lock_close},
                                       {NULL, NULL}};
    if (luaL_newmetatable(L, LOCK)) {
        lua_newtable(L);
        luaL_setfuncs(L, methods, 0);
        lua_setfield(L, -2, "__index");
        lua_pushcfunction(L, l_lock_close);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, l_lock_close);
        lua_setfield(L, -2, "__close");
        lua_pushboolean(L, false);
        lua_setfield(L, -2, "__metatable");
    }
    lua_pop(L, 1);
}
