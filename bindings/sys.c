/*
 * sys.c - the process and its surroundings for Lua (module moonbird.native.sys): environment, user,
 * terminal, clocks, random bytes. Failures are `nil, message, errno_name`.
 */
#include <errno.h>
#include <lauxlib.h>
#include <math.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "bindings/error.h"
#include "bindings/natives.h"
#include "engine/base/file.h"
#include "engine/base/hash.h"

enum { MAX_RANDOM = 4096, PASSWD_BUFFER = 16 * 1024 };

static int push_failure(lua_State *L, int code, const char *what)
{
    char text[128];
    mb_errno_text(code, text, sizeof text);
    luaL_pushfail(L);
    lua_pushfstring(L, "cannot %s: %s", what, text);
    lua_pushstring(L, mb_errno_name(code));
    return 3;
}

/* getenv(name) -> text, or nil when not set */
static int l_sys_getenv(lua_State *L)
{
    lua_pushstring(L, getenv(luaL_checkstring(L, 1)));
    return 1;
}

/* setenv(name, value|nil) -> true; nil unsets */
static int l_sys_setenv(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    const char *value = luaL_optstring(L, 2, NULL);
    int failed = value ? setenv(name, value, 1) : unsetenv(name);
    if (failed)
        return push_failure(L, errno, "set an environment variable");
    lua_pushboolean(L, 1);
    return 1;
}

/* environ() -> table of all variables */
static int l_sys_environ(lua_State *L)
{
    lua_newtable(L);
    for (char **at = environ; at && *at; at++) {
        const char *equals = strchr(*at, '=');
        if (!equals)
            continue;
        lua_pushlstring(L, *at, (size_t)(equals - *at));
        lua_pushstring(L, equals + 1);
        lua_rawset(L, -3);
    }
    return 1;
}

/* hostname() -> text */
static int l_sys_hostname(lua_State *L)
{
    char name[256] = "";
    if (gethostname(name, sizeof name - 1) < 0)
        return push_failure(L, errno, "read the host name");
    lua_pushstring(L, name);
    return 1;
}

static int l_sys_pid(lua_State *L)
{
    lua_pushinteger(L, getpid());
    return 1;
}

static int l_sys_uid(lua_State *L)
{
    lua_pushinteger(L, geteuid());
    return 1;
}

/* user() -> name of the effective user, or its number as text where it has none (containers) */
static int l_sys_user(lua_State *L)
{
    char work[PASSWD_BUFFER];
    struct passwd entry;
    struct passwd *found = NULL;
    if (getpwuid_r(geteuid(), &entry, work, sizeof work, &found) == 0 && found)
        lua_pushstring(L, found->pw_name);
    else
        lua_pushfstring(L, "%d", (int)geteuid());
    return 1;
}

/* passwd(name) -> {uid, gid, home}, or nil, message when there is no such user */
static int l_sys_passwd(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    char work[PASSWD_BUFFER];
    struct passwd entry;
    struct passwd *found = NULL;
    int code = getpwnam_r(name, &entry, work, sizeof work, &found);
    if (!found) {
        if (code)
            return push_failure(L, code, "look up a user");
        luaL_pushfail(L);
        lua_pushfstring(L, "there is no user \"%s\"", name);
        lua_pushliteral(L, "ENOENT");
        return 3;
    }
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, found->pw_uid);
    lua_setfield(L, -2, "uid");
    lua_pushinteger(L, found->pw_gid);
    lua_setfield(L, -2, "gid");
    lua_pushstring(L, found->pw_dir);
    lua_setfield(L, -2, "home");
    return 1;
}

static int l_sys_isatty(lua_State *L)
{
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

/* columns(fd) -> width of the terminal, or nil */
static int l_sys_columns(lua_State *L)
{
    struct winsize size;
    if (ioctl((int)luaL_checkinteger(L, 1), TIOCGWINSZ, &size) < 0 || size.ws_col == 0)
        lua_pushnil(L);
    else
        lua_pushinteger(L, size.ws_col);
    return 1;
}

static int push_clock(lua_State *L, clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    lua_pushnumber(L, (double)now.tv_sec + (double)now.tv_nsec / 1e9);
    return 1;
}

/* time() -> seconds since 1970 */
static int l_sys_time(lua_State *L)
{
    return push_clock(L, CLOCK_REALTIME);
}

/* monotonic() -> seconds since some moment, never going back */
static int l_sys_monotonic(lua_State *L)
{
    return push_clock(L, CLOCK_MONOTONIC);
}

static void set_integer(lua_State *L, const char *key, lua_Integer value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, key);
}

/* utc([t]) -> {year, month, day, hour, min, sec} of a time() value, default now */
static int l_sys_utc(lua_State *L)
{
    lua_Number seconds;
    if (lua_isnoneornil(L, 1)) {
        push_clock(L, CLOCK_REALTIME);
        seconds = lua_tonumber(L, -1);
    } else {
        seconds = luaL_checknumber(L, 1);
    }
    luaL_argcheck(L, fabs(seconds) < 1e15, 1, "out of range");
    time_t whole = (time_t)floor(seconds);
    struct tm tm;
    if (!gmtime_r(&whole, &tm))
        return push_failure(L, errno, "split the time");
    lua_createtable(L, 0, 6);
    set_integer(L, "year", tm.tm_year + 1900);
    set_integer(L, "month", tm.tm_mon + 1);
    set_integer(L, "day", tm.tm_mday);
    set_integer(L, "hour", tm.tm_hour);
    set_integer(L, "min", tm.tm_min);
    set_integer(L, "sec", tm.tm_sec);
    return 1;
}

/* random(n) -> n bytes (1 to 4096) of the kernel's generator */
static int l_sys_random(lua_State *L)
{
    char bytes[MAX_RANDOM];
    lua_Integer count = luaL_checkinteger(L, 1);
    luaL_argcheck(L, count >= 1 && count <= MAX_RANDOM, 1, "must be 1 to 4096");
    int code = mb_random_bytes(bytes, (size_t)count);
    if (code)
        return push_failure(L, code, "read random bytes");
    lua_pushlstring(L, bytes, (size_t)count);
    return 1;
}

/* write(fd, text) -> true */
static int l_sys_write(lua_State *L)
{
    int fd = (int)luaL_checkinteger(L, 1);
    size_t len;
    const char *text = luaL_checklstring(L, 2, &len);
    int code = mb_file_write_fd(fd, text, len);
    if (code)
        return push_failure(L, code, fd == STDOUT_FILENO ? "write to stdout" : "write");
    lua_pushboolean(L, 1);
    return 1;
}

/* sha256(text) -> 64 lower-case hex digits */
static int l_sys_sha256(lua_State *L)
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    char hex[65];
    mb_sha256_hex(text, len, hex);
    lua_pushlstring(L, hex, 64);
    return 1;
}

/* exit(code [, close]): ends the process; close=true closes the Lua state first */
static int l_sys_exit(lua_State *L)
{
    int status = (int)luaL_optinteger(L, 1, EXIT_SUCCESS);
    if (lua_toboolean(L, 2))
        lua_close(L);
    exit(status);
}

int luaopen_moonbird_native_sys(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"getenv", l_sys_getenv},
        {"setenv", l_sys_setenv},
        {"environ", l_sys_environ},
        {"hostname", l_sys_hostname},
        {"pid", l_sys_pid},
        {"uid", l_sys_uid},
        {"user", l_sys_user},
        {"passwd", l_sys_passwd},
        {"isatty", l_sys_isatty},
        {"columns", l_sys_columns},
        {"time", l_sys_time},
        {"monotonic", l_sys_monotonic},
        {"utc", l_sys_utc},
        {"random", l_sys_random},
        {"write", l_sys_write},
        {"sha256", l_sys_sha256},
        {"exit", l_sys_exit},
        {NULL, NULL},
    };
    luaL_newlib(L, functions);
    return 1;
}
