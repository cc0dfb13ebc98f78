/*
 * main.c - the moonbird binary: a Lua state, one root task, the scheduler's turns, an exit status.
 * All of the program is in lua/moonbird/cli; everything runs protected.
 */
#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bindings/state.h"
#include "engine/base/error.h"

/* Pushes the arguments and calls moonbird.cli.main.run(args), which turns the scheduler until its root
 * task has ended and returns the exit status. */
static int pmain(lua_State *L)
{
    /* Start-up makes little garbage and many objects to mark; project.lua starts the collector. */
    lua_gc(L, LUA_GCSTOP);
    int argc = (int)lua_tointeger(L, 1);
    char **argv = lua_touserdata(L, 2);
    lua_getglobal(L, "require");
    lua_pushstring(L, "moonbird.cli.main");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "run");
    lua_createtable(L, argc, 0);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i);
    }
    lua_call(L, 1, 1);
    return 1;
}

static int with_traceback(lua_State *L)
{
    const char *message = luaL_tolstring(L, 1, NULL);
    luaL_traceback(L, L, message, 1);
    return 1;
}

int main(int argc, char **argv)
{
    /* A server that goes away must be an error to read, not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    const char *dev = getenv("MOONBIRD_LUA_PATH");
    lua_State *L = mbl_state_new(dev && *dev ? dev : NULL, false);
    if (!L) {
        fprintf(stderr, "moonbird: out of memory\n");
        return mb_code_status(MB_INTERNAL);
    }
    int status;
    lua_pushcfunction(L, with_traceback);
    lua_pushcfunction(L, pmain);
    lua_pushinteger(L, argc);
    lua_pushlightuserdata(L, argv);
    if (lua_pcall(L, 2, 1, 1) == LUA_OK) {
        status = (int)lua_tointeger(L, -1);
    } else {
        fprintf(stderr, "moonbird: internal error: %s\n", lua_tostring(L, -1));
        status = mb_code_status(MB_INTERNAL);
    }
#ifdef MB_FREE_AT_EXIT
    mbl_state_close(L);
    return status;
#else
    /* The kernel takes it all back at once: walking the heap and libraries' exit handlers would take
     * longer than a query. */
    fflush(NULL);
    _exit(status);
#endif
}
