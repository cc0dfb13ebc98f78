/*
 * state.c - the Lua state: allocator, standard libraries, natives, embedded modules.
 */
#include "bindings/state.h"

#include <lauxlib.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/embedded.h"
#include "bindings/natives.h"
#include "bindings/sandbox.h"
#include "bindings/task.h"
#include "engine/base/base.h"
#include "engine/loop/loop.h"
#include "engine/pg/conn.h"
#include "engine/sql/parse.h"

static mbl_alloc_state memory;

static const mbl_embedded *find_embedded(const char *kind, const char *name)
{
    for (const mbl_embedded *e = mbl_embedded_files; e->kind; e++)
        if (!strcmp(e->kind, kind) && !strcmp(e->name, name))
            return e;
    return NULL;
}

/* package.searchers entry: the embedded module of that name. */
static int l_search_embedded(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    const mbl_embedded *e = find_embedded("module", name);
    if (!e) {
        lua_pushfstring(L, "no embedded module '%s'", name);
        return 1;
    }
    char chunk[256];
    snprintf(chunk, sizeof chunk, "@%s", name);
    for (char *p = chunk + 1; *p; p++)
        if (*p == '.')
            *p = '/';
    strncat(chunk, ".lua", sizeof chunk - strlen(chunk) - 1);
    if (luaL_loadbufferx(L, e->data, e->len, chunk, "b") != LUA_OK)
        return lua_error(L);
    lua_pushstring(L, chunk);
    return 2;
}

/* journal_migrations() -> array of {name, text}: the journal's own migrations, by name */
static int l_journal_migrations(lua_State *L)
{
    lua_newtable(L);
    int i = 0;
    for (const mbl_embedded *e = mbl_embedded_files; e->kind; e++) {
        if (strcmp(e->kind, "journal") != 0)
            continue;
        lua_createtable(L, 0, 2);
        lua_pushstring(L, e->name);
        lua_setfield(L, -2, "name");
        lua_pushlstring(L, e->data, e->len);
        lua_setfield(L, -2, "text");
        lua_rawseti(L, -2, ++i);
    }
    return 1;
}

/* module moonbird.native.embedded: version, journal_migrations() */
static int luaopen_embedded(lua_State *L)
{
    lua_newtable(L);
    lua_pushstring(L, MB_VERSION);
    lua_setfield(L, -2, "version");
    lua_createtable(L, 0, 4);
    lua_pushstring(L, LUA_VERSION_MAJOR "." LUA_VERSION_MINOR "." LUA_VERSION_RELEASE);
    lua_setfield(L, -2, "lua");
    lua_pushfstring(L, "%d.%d", mb_conn_library_version() / 10000,
                    mb_conn_library_version() % 10000);
    lua_setfield(L, -2, "libpq");
    lua_pushstring(L, mb_loop_library_version());
    lua_setfield(L, -2, "libuv");
    lua_pushstring(L, mb_sql_library_version());
    lua_setfield(L, -2, "libpg_query");
    lua_setfield(L, -2, "libraries");
    lua_pushcfunction(L, l_journal_migrations);
    lua_setfield(L, -2, "journal_migrations");
    return 1;
}

static int l_failpoint(lua_State *L);

static void add_natives(lua_State *L)
{
    static const luaL_Reg natives[] = {
        {"moonbird.native.array", luaopen_moonbird_native_array},
        {"moonbird.native.conn", luaopen_moonbird_native_conn},
        {"moonbird.native.embedded", luaopen_embedded},
        {"moonbird.native.error", luaopen_moonbird_native_error},
        {"moonbird.native.fingerprint", luaopen_moonbird_native_fingerprint},
        {"moonbird.native.fs", luaopen_moonbird_native_fs},
        {"moonbird.native.json", luaopen_moonbird_native_json},
        {"moonbird.native.process", luaopen_moonbird_native_process},
        {"moonbird.native.sandbox", luaopen_moonbird_native_sandbox},
        {"moonbird.native.sql", luaopen_moonbird_native_sql},
        {"moonbird.native.sys", luaopen_moonbird_native_sys},
        {"moonbird.native.task", luaopen_moonbird_native_task},
        {"moonbird.native.failpoint", l_failpoint},
        {NULL, NULL}};
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    luaL_setfuncs(L, natives, 0);
    lua_pop(L, 1);
}

/* failpoint(name): in crash-test builds kills the process with SIGKILL when MOONBIRD_FAILPOINT is
 * "name" or "name:n" (the n-th time), or lets it stand still until a SIGCONT with "name:n:stop";
 * elsewhere does nothing. Loaded as a module it is the function. */
static int failpoint_hit(lua_State *L)
{
#ifdef MB_FAILPOINTS
    static unsigned hits;
    const char *wanted = getenv("MOONBIRD_FAILPOINT");
    const char *name = luaL_checkstring(L, 1);
    const char *trace = getenv("MOONBIRD_FAILPOINT_TRACE");
    if (trace) { /* lets the crash tests list every point a scenario passes */
        FILE *file = fopen(trace, "a");
        if (file) {
            fprintf(file, "%s\n", name);
            fclose(file);
        }
    }
    if (!wanted)
        return 0;
    size_t len = strcspn(wanted, ":");
    char *rest = NULL;
    unsigned n = wanted[len] ? (unsigned)strtoul(wanted + len + 1, &rest, 10) : 1;
    if (strlen(name) == len && !strncmp(name, wanted, len) && ++hits == n)
        raise(rest && !strcmp(rest, ":stop") ? SIGSTOP : SIGKILL);
#else
    (void)L;
#endif
    return 0;
}

static int l_failpoint(lua_State *L)
{
    lua_pushcfunction(L, failpoint_hit);
    return 1;
}

static void add_embedded_searcher(lua_State *L, const char *lua_path, bool outside)
{
    lua_getglobal(L, "package");
    if (!outside) {
        /* Nothing of the current folder may be taken for a module of ours. */
        lua_pushstring(L, "");
        lua_setfield(L, -2, "path");
        lua_pushstring(L, "");
        lua_setfield(L, -2, "cpath");
    }
    if (lua_path) {
        lua_pushfstring(L, "%s/?.lua", lua_path);
        lua_setfield(L, -2, "path");
    }
    lua_getfield(L, -1, "searchers");
    lua_Integer count = (lua_Integer)lua_rawlen(L, -1);
    /* Second after preload: an embedded module is never shadowed by a file of the user's. */
    lua_Integer place = lua_path ? count + 1 : 2;
    for (lua_Integer i = count; i >= place; i--) {
        lua_rawgeti(L, -1, i);
        lua_rawseti(L, -2, i + 1);
    }
    lua_pushcfunction(L, l_search_embedded);
    lua_rawseti(L, -2, place);
    lua_pop(L, 2);
}

lua_State *mbl_state_new(const char *lua_path, bool outside)
{
    memory = (mbl_alloc_state){0};
    lua_State *L = lua_newstate(mbl_alloc, &memory);
    if (!L)
        return NULL;
    luaL_openlibs(L);
    add_natives(L);
    add_embedded_searcher(L, lua_path, outside);
    return L;
}

void mbl_state_close(lua_State *L)
{
    mbl_tasks_abandon();
    lua_close(L);
    mbl_sched_shutdown();
}
