/*
 * main_lua.c - moonbird-lua: a plain Lua 5.4 interpreter with the engine's modules, so that busted and
 * a user's own policy tests run where the natives are: `busted --lua=$(which moonbird-lua)`.
 * Takes the options of lua(1) that test runners use: -e CODE, -l MODULE.
 */
#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/state.h"

static int with_traceback(lua_State *L)
{
    const char *message = luaL_tolstring(L, 1, NULL);
    luaL_traceback(L, L, message, 1);
    return 1;
}

static int report(lua_State *L, int status)
{
    if (status == LUA_OK)
        return 0;
    fprintf(stderr, "moonbird-lua: %s\n", lua_tostring(L, -1));
    lua_pop(L, 1);
    return 1;
}

static int call(lua_State *L, int args)
{
    int handler = lua_gettop(L) - args;
    lua_pushcfunction(L, with_traceback);
    lua_insert(L, handler);
    int failed = report(L, lua_pcall(L, args, 0, handler));
    lua_remove(L, handler);
    return failed;
}

static int run_code(lua_State *L, const char *code)
{
    int status = luaL_loadbuffer(L, code, strlen(code), "=(command line)");
    return status == LUA_OK ? call(L, 0) : report(L, status);
}

static int run_require(lua_State *L, const char *module)
{
    lua_getglobal(L, "require");
    lua_pushstring(L, module);
    return call(L, 1);
}

static void push_args(lua_State *L, int argc, char **argv, int script)
{
    lua_createtable(L, argc, 2);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");
}

static int run_script(lua_State *L, int argc, char **argv, int script)
{
    int status = luaL_loadfile(L, !strcmp(argv[script], "-") ? NULL : argv[script]);
    if (status != LUA_OK)
        return report(L, status);
    for (int i = script + 1; i < argc; i++)
        lua_pushstring(L, argv[i]);
    return call(L, argc - script - 1);
}

/* Runs the options before the script; `*next` gets the index of the script (argc if there is none). */
static int run_options(lua_State *L, int argc, char **argv, int *next)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
        char option = argv[i][1];
        if (!strcmp(argv[i], "--")) {
            i++;
            break;
        }
        const char *value = argv[i][2] ? argv[i] + 2 : i + 1 < argc ? argv[++i] : NULL;
        if ((option != 'e' && option != 'l') || !value) {
            fprintf(stderr, "usage: moonbird-lua [-e CODE] [-l MODULE] [SCRIPT [ARGS]]\n");
            return 2;
        }
        if (option == 'e' ? run_code(L, value) : run_require(L, value))
            return 1;
    }
    *next = i;
    return 0;
}

/* The index of the script: what follows the options. */
static int find_script(int argc, char **argv)
{
    int i = 1;
    while (i < argc && argv[i][0] == '-' && argv[i][1] && strcmp(argv[i], "--") != 0)
        i += argv[i][2] ? 1 : 2;
    return i < argc && !strcmp(argv[i], "--") ? i + 1 : i;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    lua_State *L = mbl_state_new(NULL, true);
    if (!L)
        return 1;
    push_args(L, argc, argv, find_script(argc, argv));
    int script = argc;
    int failed = run_options(L, argc, argv, &script);
    if (!failed && script < argc)
        failed = run_script(L, argc, argv, script);
    mbl_state_close(L);
    return failed;
}
