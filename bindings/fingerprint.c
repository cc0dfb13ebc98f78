/*
 * fingerprint.c - engine/core/fingerprint.h for Lua (module moonbird.native.fingerprint).
 */
#include <lauxlib.h>

#include "bindings/natives.h"
#include "bindings/sandbox.h"
#include "bindings/task.h"
#include "engine/core/fingerprint.h"

#define BOX "moonbird.fingerprint"
#define MAX_FOLDERS 64

typedef struct box {
    mb_fingerprint *fingerprint;
} box;

static int l_gc(lua_State *L)
{
    box *b = luaL_checkudata(L, 1, BOX);
    if (b->fingerprint)
        mb_fingerprint_free(&b->fingerprint);
    return 0;
}

static int folders_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    box *b = (box *)ctx;
    if (!b->fingerprint->wait.done && mbl_take_cancel(L))
        return 2;
    if (b->fingerprint->hex[0])
        lua_pushstring(L, b->fingerprint->hex);
    else
        lua_pushnil(L);
    mb_fingerprint_free(&b->fingerprint);
    return 1;
}

/* folders{ path, ... } -> the fingerprint as hex; nil when a full scan must look at the folders; or nil,
 * err when cancelled */
static int l_folders(lua_State *L)
{
    const char *folders[MAX_FOLDERS + 1];
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_Integer count = (lua_Integer)lua_rawlen(L, 1);
    luaL_argcheck(L, count <= MAX_FOLDERS, 1, "at most 64 folders");
    luaL_checkstack(L, (int)count + 4, "folders");
    if (!mb_sched_current(mbl_sched()) || !mbl_sandbox_can_wait(L))
        return luaL_error(L, "this call waits, and can only be made inside a task");
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 1, i);
        folders[i - 1] = luaL_checkstring(L, -1);
    }
    folders[count] = NULL;
    box *b = lua_newuserdatauv(L, sizeof *b, 0);
    b->fingerprint = NULL;
    luaL_setmetatable(L, BOX);
    b->fingerprint = mb_fingerprint_start(mbl_sched(), folders);
    return mbl_await(L, &b->fingerprint->wait, folders_k, (lua_KContext)b);
}

int luaopen_moonbird_native_fingerprint(lua_State *L)
{
    static const luaL_Reg functions[] = {{"folders", l_folders}, {NULL, NULL}};
    if (luaL_newmetatable(L, BOX)) {
        lua_pushcfunction(L, l_gc);
        lua_setfield(L, -2, "__gc");
    }
    luaL_newlib(L, functions);
    return 1;
}
