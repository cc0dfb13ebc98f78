/*
 * fs.c - files and folders for Lua (module moonbird.native.fs).
 *
 * Failures are `nil, message, errno_name` ("ENOENT"). What C owns while Lua may raise lives in a
 * scratch userdata (a buffer, a listing, a descriptor) that the collector empties.
 */
#include <errno.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bindings/error.h"
#include "bindings/natives.h"
#include "engine/base/file.h"
#include "engine/base/hash.h"

#define SCRATCH "moonbird.fs.scratch"

/* Everything a call of this module may hold across a call that raises. */
typedef struct scratch {
    mb_buf buf;
    mb_file_list list;
    char *text;
    int fd;
} scratch;

static void scratch_empty(scratch *s)
{
    mb_buf_free(&s->buf);
    mb_file_list_free(&s->list);
    free(s->text);
    s->text = NULL;
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static int l_scratch_gc(lua_State *L)
{
    scratch_empty(lua_touserdata(L, 1));
    return 0;
}

/* Pushes an empty scratch. */
static scratch *scratch_new(lua_State *L)
{
    scratch *s = lua_newuserdatauv(L, sizeof *s, 0);
    *s = (scratch){.buf = MB_BUF_INIT, .list = MB_FILE_LIST_INIT, .text = NULL, .fd = -1};
    luaL_setmetatable(L, SCRATCH);
    return s;
}

/* A path argument: NUL bytes in it would silently name another file. */
static const char *check_path(lua_State *L, int arg)
{
    size_t len;
    const char *path = luaL_checklstring(L, arg, &len);
    luaL_argcheck(L, strlen(path) == len, arg, "path contains a NUL byte");
    return path;
}

static int push_failure(lua_State *L, int code, const char *verb, const char *path)
{
    char text[128];
    mb_errno_text(code, text, sizeof text);
    luaL_pushfail(L);
    lua_pushfstring(L, "cannot %s \"%s\": %s", verb, path, text);
    lua_pushstring(L, mb_errno_name(code));
    return 3;
}

static int push_done(lua_State *L, int code, const char *verb, const char *path)
{
    if (code)
        return push_failure(L, code, verb, path);
    lua_pushboolean(L, 1);
    return 1;
}

static const char *type_name(mb_file_type type)
{
    static const char *const names[] = {"file", "dir", "link", "other"};
    return names[type];
}

/* read(path) -> text */
static int l_fs_read(lua_State *L)
{
    const char *path = check_path(L, 1);
    scratch *s = scratch_new(L);
    int code = mb_file_read(path, &s->buf);
    if (code) {
        scratch_empty(s);
        return push_failure(L, code, "read", path);
    }
    lua_pushlstring(L, s->buf.data, s->buf.len);
    scratch_empty(s);
    return 1;
}

/* write(path, data [, {exclusive=true}]) -> true */
static int l_fs_write(lua_State *L)
{
    const char *path = check_path(L, 1);
    size_t len;
    const char *data = luaL_checklstring(L, 2, &len);
    unsigned flags = 0;
    if (!lua_isnoneornil(L, 3)) {
        luaL_checktype(L, 3, LUA_TTABLE);
        lua_getfield(L, 3, "exclusive");
        if (lua_toboolean(L, -1))
            flags |= MB_FILE_EXCLUSIVE;
    }
    return push_done(L, mb_file_write(path, data, len, flags), "write", path);
}

/* append(path, data) -> true */
static int l_fs_append(lua_State *L)
{
    const char *path = check_path(L, 1);
    size_t len;
    const char *data = luaL_checklstring(L, 2, &len);
    return push_done(L, mb_file_append(path, data, len), "write", path);
}

/* list(dir) -> array of {name, type}, bytewise sorted */
static int l_fs_list(lua_State *L)
{
    const char *path = check_path(L, 1);
    scratch *s = scratch_new(L);
    int code = mb_file_list_dir(path, &s->list);
    if (code)
        return push_failure(L, code, "list", path);
    lua_createtable(L, (int)s->list.count, 0);
    for (size_t i = 0; i < s->list.count; i++) {
        lua_createtable(L, 0, 2);
        lua_pushstring(L, s->list.entries[i].name);
        lua_setfield(L, -2, "name");
        lua_pushstring(L, type_name(s->list.entries[i].type));
        lua_setfield(L, -2, "type");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    scratch_empty(s);
    return 1;
}

/* names(dir) -> array of names, bytewise sorted; table of index -> type for those that are no plain
 * files. list() without a table for each entry: folders of migrations are large and listed in every
 * run. */
static int l_fs_names(lua_State *L)
{
    const char *path = check_path(L, 1);
    scratch *s = scratch_new(L);
    int code = mb_file_list_dir(path, &s->list);
    if (code)
        return push_failure(L, code, "list", path);
    lua_createtable(L, (int)s->list.count, 0);
    lua_newtable(L);
    for (size_t i = 0; i < s->list.count; i++) {
        if (s->list.entries[i].type != MB_FILE_REGULAR) {
            lua_pushstring(L, type_name(s->list.entries[i].type));
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        lua_pushstring(L, s->list.entries[i].name);
        lua_rawseti(L, -3, (lua_Integer)i + 1);
    }
    scratch_empty(s);
    return 2;
}

/* stat(path) -> {type, size, mtime, mode, uid, gid} of what the path leads to */
static int l_fs_stat(lua_State *L)
{
    const char *path = check_path(L, 1);
    mb_file_stat st;
    int code = mb_file_stat_path(path, &st);
    if (code)
        return push_failure(L, code, "stat", path);
    lua_createtable(L, 0, 6);
    lua_pushstring(L, type_name(st.type));
    lua_setfield(L, -2, "type");
    lua_pushinteger(L, st.size);
    lua_setfield(L, -2, "size");
    lua_pushnumber(L, st.mtime);
    lua_setfield(L, -2, "mtime");
    lua_pushinteger(L, st.mode);
    lua_setfield(L, -2, "mode");
    lua_pushinteger(L, st.uid);
    lua_setfield(L, -2, "uid");
    lua_pushinteger(L, st.gid);
    lua_setfield(L, -2, "gid");
    return 1;
}

/* mkdir(path [, mode]) -> true; makes missing parents, an existing folder is fine */
static int l_fs_mkdir(lua_State *L)
{
    const char *path = check_path(L, 1);
    lua_Integer mode = luaL_optinteger(L, 2, 0777);
    return push_done(L, mb_file_mkdirs(path, (mode_t)mode), "make folder", path);
}

/* remove(path) -> true */
static int l_fs_remove(lua_State *L)
{
    const char *path = check_path(L, 1);
    return push_done(L, mb_file_remove(path), "remove", path);
}

/* remove_tree(path) -> true */
static int l_fs_remove_tree(lua_State *L)
{
    const char *path = check_path(L, 1);
    return push_done(L, mb_file_remove_tree(path), "remove", path);
}

/* rename(from, to) -> true */
static int l_fs_rename(lua_State *L)
{
    const char *from = check_path(L, 1);
    const char *to = check_path(L, 2);
    return push_done(L, rename(from, to) < 0 ? errno : 0, "rename", from);
}

/* realpath(path) -> absolute path without links */
static int l_fs_realpath(lua_State *L)
{
    const char *path = check_path(L, 1);
    scratch *s = scratch_new(L);
    s->text = realpath(path, NULL);
    if (!s->text)
        return push_failure(L, errno, "resolve", path);
    lua_pushstring(L, s->text);
    scratch_empty(s);
    return 1;
}

/* cwd() -> the current folder */
static int l_fs_cwd(lua_State *L)
{
    scratch *s = scratch_new(L);
    s->text = getcwd(NULL, 0);
    if (!s->text)
        return push_failure(L, errno, "resolve", ".");
    lua_pushstring(L, s->text);
    scratch_empty(s);
    return 1;
}

/* chdir(path) -> true */
static int l_fs_chdir(lua_State *L)
{
    const char *path = check_path(L, 1);
    return push_done(L, chdir(path) < 0 ? errno : 0, "change to folder", path);
}

/* tempdir(prefix) -> path of a new private folder */
static int l_fs_tempdir(lua_State *L)
{
    const char *prefix = check_path(L, 1);
    scratch *s = scratch_new(L);
    int code = mb_file_tempdir(prefix, &s->text);
    if (code)
        return push_failure(L, code, "make a temporary folder", prefix);
    lua_pushstring(L, s->text);
    scratch_empty(s);
    return 1;
}

/* access(path, "r"|"w"|"x") -> whether this process may */
static int l_fs_access(lua_State *L)
{
    static const char *const names[] = {"r", "w", "x", NULL};
    static const int modes[] = {R_OK, W_OK, X_OK};
    const char *path = check_path(L, 1);
    int mode = modes[luaL_checkoption(L, 2, NULL, names)];
    lua_pushboolean(L, access(path, mode) == 0);
    return 1;
}

/* chown(path, uid, gid) -> true; links are not followed */
static int l_fs_chown(lua_State *L)
{
    const char *path = check_path(L, 1);
    uid_t uid = (uid_t)luaL_checkinteger(L, 2);
    gid_t gid = (gid_t)luaL_checkinteger(L, 3);
    return push_done(L, lchown(path, uid, gid) < 0 ? errno : 0, "change the owner of", path);
}

/* chmod(path, mode) -> true */
static int l_fs_chmod(lua_State *L)
{
    const char *path = check_path(L, 1);
    lua_Integer mode = luaL_checkinteger(L, 2);
    return push_done(L, chmod(path, (mode_t)mode) < 0 ? errno : 0, "change the mode of", path);
}

/* Pushes {error, errno}. */
static void push_file_error(lua_State *L, int code)
{
    char text[128];
    lua_createtable(L, 0, 2);
    lua_pushstring(L, mb_errno_text(code, text, sizeof text));
    lua_setfield(L, -2, "error");
    lua_pushstring(L, mb_errno_name(code));
    lua_setfield(L, -2, "errno");
}

/* Pushes {text, sha256} or {error, errno} for one file of the folder s->fd. */
static void push_file(lua_State *L, scratch *s, const char *name)
{
    mb_buf_clear(&s->buf);
    int code = mb_file_read_at(s->fd, name, &s->buf);
    if (code) {
        push_file_error(L, code);
        return;
    }
    char hex[65];
    lua_createtable(L, 0, 2);
    mb_sha256_hex(s->buf.data, s->buf.len, hex);
    lua_pushlstring(L, s->buf.data, s->buf.len);
    lua_setfield(L, -2, "text");
    lua_pushlstring(L, hex, 64);
    lua_setfield(L, -2, "sha256");
}

/* read_files(dir, names) -> array of {text, sha256} or {error, errno}, in the order of names. One
 * buffer for all, no stat, names resolved from the folder's descriptor. */
static int l_fs_read_files(lua_State *L)
{
    const char *dir = check_path(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_Integer count = luaL_len(L, 2);
    scratch *s = scratch_new(L);
    int code = mb_file_open_dir(dir, &s->fd);
    if (code)
        return push_failure(L, code, "read", dir);
    lua_createtable(L, (int)count, 0);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 2, i);
        luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, 2, "names must be strings");
        push_file(L, s, lua_tostring(L, -1));
        lua_rawseti(L, -3, i);
        lua_pop(L, 1);
    }
    scratch_empty(s);
    return 1;
}

/* hash_files(dir, names) -> array of SHA-256 in hex (false where a file could not be read), table
 * of index -> {error, errno}. On the path of every run, also one with nothing to do, for every
 * file: one buffer, no text kept, no table made. (10,000 small files cost about 2 us each, nearly
 * all of it in open and close; helper threads gained little on two cores.) */
static int l_fs_hash_files(lua_State *L)
{
    const char *dir = check_path(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_Integer count = luaL_len(L, 2);
    scratch *s = scratch_new(L);
    int code = mb_file_open_dir(dir, &s->fd);
    if (code)
        return push_failure(L, code, "read", dir);
    lua_createtable(L, (int)count, 0);
    lua_newtable(L);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 2, i);
        luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, 2, "names must be strings");
        mb_buf_clear(&s->buf);
        code = mb_file_read_at(s->fd, lua_tostring(L, -1), &s->buf);
        lua_pop(L, 1);
        if (code) {
            push_file_error(L, code);
            lua_rawseti(L, -2, i);
            lua_pushboolean(L, 0);
        } else {
            char hex[65];
            mb_sha256_hex(s->buf.data, s->buf.len, hex);
            lua_pushlstring(L, hex, 64);
        }
        lua_rawseti(L, -3, i);
    }
    scratch_empty(s);
    return 2;
}

int luaopen_moonbird_native_fs(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"read", l_fs_read},
        {"write", l_fs_write},
        {"append", l_fs_append},
        {"list", l_fs_list},
        {"names", l_fs_names},
        {"stat", l_fs_stat},
        {"mkdir", l_fs_mkdir},
        {"remove", l_fs_remove},
        {"remove_tree", l_fs_remove_tree},
        {"rename", l_fs_rename},
        {"realpath", l_fs_realpath},
        {"cwd", l_fs_cwd},
        {"chdir", l_fs_chdir},
        {"tempdir", l_fs_tempdir},
        {"access", l_fs_access},
        {"chown", l_fs_chown},
        {"chmod", l_fs_chmod},
        {"read_files", l_fs_read_files},
        {"hash_files", l_fs_hash_files},
        {NULL, NULL},
    };
    if (luaL_newmetatable(L, SCRATCH)) {
        lua_pushcfunction(L, l_scratch_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
