/*
 * sandbox_lib.c - the functions of Lua's library that a script gets in another form: pcall and
 * xpcall can't catch a passed limit, coroutines share the limits of their run and pass waits for
 * the engine on, metatables can't have finalizers or reach the engine's objects.
 *
 * Each works outside a run too (mbl_run_current() is NULL), as a script's closure may be called
 * there.
 */
#include <lauxlib.h>
#include <string.h>

#include "bindings/error.h"
#include "bindings/sandbox_run.h"

#define MAX_CLOSING 60 /* nested lua_resetthread(): Lua 5.4.4 does not count its C levels */

/* Protected calls of scripts ------------------------------------------------------------------- */

/* Stack: handler, true, results... or handler, true, error. */
static int finish_protected(lua_State *L, int status, lua_KContext ctx)
{
    (void)ctx;
    mbl_run *run = mbl_run_current(L);
    if (run && run->exceeded)
        return mbl_run_kill(L);
    if (status == LUA_OK || status == LUA_YIELD)
        return lua_gettop(L) - 1;
    lua_pushboolean(L, false);
    lua_pushvalue(L, -2);
    return 2;
}

static int on_caught(lua_State *L)
{
    lua_settop(L, 1);
    mbl_annotate(L, L);
    return 1;
}

/* A script's message handler. After a kill it must not be called: the error came out of the hook,
 * and until that error is caught Lua calls no hooks, so the handler could run for ever. */
static int on_caught_handler(lua_State *L)
{
    mbl_run *run = mbl_run_current(L);
    lua_settop(L, 1);
    if (run && run->exceeded)
        return 1;
    mbl_annotate(L, L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

/* pcall(f, ...): as Lua's, but errors of the engine get their position. */
static int l_pcall(lua_State *L)
{
    luaL_checkany(L, 1);
    lua_pushcfunction(L, on_caught);
    lua_pushboolean(L, true);
    lua_rotate(L, 1, 2);
    int status = lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 1, 0, finish_protected);
    return finish_protected(L, status, 0);
}

/* xpcall(f, handler, ...) */
static int l_xpcall(lua_State *L)
{
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, on_caught_handler, 1);
    lua_pushvalue(L, 1);
    lua_insert(L, 3);
    lua_replace(L, 1);
    /* now: handler closure, handler, f, args... */
    lua_pushboolean(L, true);
    lua_replace(L, 2);
    int status = lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 1, 0, finish_protected);
    return finish_protected(L, status, 0);
}

/* Coroutines of scripts ------------------------------------------------------------------------ */

static lua_State *check_coroutine(lua_State *L, int index)
{
    lua_State *co = lua_tothread(L, index);
    luaL_argexpected(L, co, index, "coroutine");
    return co;
}

static int l_create(lua_State *L)
{
    mbl_run *run = mbl_run_current(L);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    /* A thread counts from zero, so its last part of a quantum is never charged: it is paid here,
     * or a loop over short-lived coroutines would be nearly free. */
    if (run && run->counted)
        mbl_run_spend(L, run, MBL_QUANTUM);
    lua_State *co = lua_newthread(L);
    mbl_run_guard(co, run);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    return 1;
}

/* Resumes co with the top `count` values. Returns the number of results moved to L, or -1 with the
 * error on top of L; a wait is passed on, and k continues. */
static int advance(lua_State *L, lua_State *co, int count, lua_KFunction k)
{
    mbl_run *run = mbl_run_current(L);
    int results = 0;
    if (!lua_checkstack(co, count)) {
        lua_pushliteral(L, "too many arguments to resume");
        return -1;
    }
    lua_xmove(L, co, count);
    mbl_run_guard(co, run);
    bool can_wait = lua_isyieldable(L);
    lua_State *outer = run ? run->running : NULL;
    if (run) {
        run->running = co;
        run->nowait += !can_wait;
    }
    int status = lua_resume(co, L, count, &results);
    if (run) {
        run->running = outer;
        run->nowait -= !can_wait;
        if (run->exceeded)
            return mbl_run_kill(L);
    }
    if (status == LUA_YIELD && mbl_yielded_sentinel(co, results)) {
        lua_pop(co, 1);
        if (can_wait)
            return mbl_pass_wait_on(L, 0, k);
        lua_pushliteral(L, "the database can't be waited for inside a callback of a C function");
        return -1;
    }
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        mbl_annotate(L, co);
        return -1;
    }
    if (!lua_checkstack(L, results + 1)) {
        lua_pop(co, results);
        lua_pushliteral(L, "too many results to resume");
        return -1;
    }
    lua_xmove(co, L, results);
    return results;
}

static int resume_k(lua_State *L, int status, lua_KContext ctx);

static int resume_step(lua_State *L, int count)
{
    int results = advance(L, lua_tothread(L, 1), count, resume_k);
    lua_pushboolean(L, results >= 0);
    int pushed = results >= 0 ? results : 1;
    lua_insert(L, -(pushed + 1));
    return pushed + 1;
}

static int resume_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status, (void)ctx;
    lua_settop(L, 1);
    return resume_step(L, 0);
}

static int l_resume(lua_State *L)
{
    check_coroutine(L, 1);
    return resume_step(L, lua_gettop(L) - 1);
}

/* Closes the pending variables of co. The error, if the result is not LUA_OK, is on top of co. */
static int reset(lua_State *L, lua_State *co)
{
    mbl_run *run = mbl_run_current(L);
    if (!run)
        return lua_resetthread(co);
    if (run->closing >= MAX_CLOSING)
        return luaL_error(L, "coroutines closed inside each other too deeply");
    lua_State *outer = run->running;
    mbl_run_guard(co, run);
    run->closing++;
    run->nowait++; /* nothing can yield out of lua_resetthread() */
    run->running = co;
    int status = lua_resetthread(co);
    run->running = outer;
    run->nowait--;
    run->closing--;
    if (run->exceeded)
        return mbl_run_kill(L);
    return status;
}

static int wrap_k(lua_State *L, int status, lua_KContext ctx);

static int wrap_step(lua_State *L, int count)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    int results = advance(L, co, count, wrap_k);
    if (results >= 0)
        return results;
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) {
        reset(L, co);
        lua_xmove(co, L, 1); /* the same error, or the one of a __close */
    }
    return lua_error(L);
}

static int wrap_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status, (void)ctx;
    lua_settop(L, 0);
    return wrap_step(L, 0);
}

static int wrap_call(lua_State *L)
{
    return wrap_step(L, lua_gettop(L));
}

static int l_wrap(lua_State *L)
{
    l_create(L);
    lua_pushcclosure(L, wrap_call, 1);
    return 1;
}

static int l_close(lua_State *L)
{
    lua_Debug ar;
    lua_State *co = check_coroutine(L, 1);
    bool normal = lua_status(co) == LUA_OK && lua_getstack(co, 0, &ar);
    if (co == L || normal)
        return luaL_error(L, "cannot close a %s coroutine", co == L ? "running" : "normal");
    if (reset(L, co) == LUA_OK) {
        lua_pushboolean(L, true);
        return 1;
    }
    lua_pushboolean(L, false);
    lua_xmove(co, L, 1);
    return 2;
}

/* To a script the coroutine of its run is the main one. */
static bool is_main(lua_State *L)
{
    mbl_run *run = mbl_run_current(L);
    bool main = lua_pushthread(L);
    lua_pop(L, 1);
    return main || (run && run->co == L);
}

static int l_yield(lua_State *L)
{
    if (is_main(L))
        return luaL_error(L, "yield outside a coroutine");
    return lua_yield(L, lua_gettop(L));
}

static int l_isyieldable(lua_State *L)
{
    lua_State *co = lua_isnone(L, 1) ? L : check_coroutine(L, 1);
    lua_pushboolean(L, lua_isyieldable(co) && !is_main(co));
    return 1;
}

static int l_running(lua_State *L)
{
    bool main = is_main(L);
    lua_pushthread(L);
    lua_pushboolean(L, main);
    return 2;
}

/* mbl_run_guard(co): makes a coroutine count against the run that resumes it. */
static int l_guard(lua_State *L)
{
    mbl_run_guard(check_coroutine(L, 1), mbl_run_current(L));
    return 0;
}

/* Metatables, strings -------------------------------------------------------------------------- */

/* Whether the metatable on top was set by a script (upvalue 1 is the weak set of those). */
static bool is_scripts_own(lua_State *L)
{
    lua_pushvalue(L, -1);
    bool own = lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL;
    lua_pop(L, 1);
    return own;
}

/* getmetatable(v): false for what is not the script's: strings, libraries, objects of the engine.
 */
static int l_getmetatable(lua_State *L)
{
    luaL_checkany(L, 1);
    if (!lua_getmetatable(L, 1)) {
        lua_pushnil(L);
        return 1;
    }
    if (!is_scripts_own(L)) {
        lua_pushboolean(L, false);
        return 1;
    }
    luaL_getmetafield(L, 1, "__metatable"); /* else the metatable stays on top */
    return 1;
}

static int l_setmetatable(lua_State *L)
{
    int type = lua_type(L, 2);
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, type == LUA_TNIL || type == LUA_TTABLE, 2, "nil or table");
    if (lua_getmetatable(L, 1)) {
        if (!is_scripts_own(L))
            return mbl_sandbox_refuse(
                L, "the metatable of a library table or an object of the engine can't be "
                   "changed");
        if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
            return luaL_error(L, "cannot change a protected metatable");
    }
    lua_settop(L, 2);
    if (type == LUA_TTABLE) {
        /* Finalizers run inside whatever code happens to allocate, where no hook is called. */
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL)
            return mbl_sandbox_refuse(
                L, "a metatable can't have __gc here; use a local variable with <close>");
        lua_pushvalue(L, 2);
        lua_pushboolean(L, true);
        lua_rawset(L, lua_upvalueindex(1));
    }
    lua_settop(L, 2);
    lua_setmetatable(L, 1);
    return 1;
}

static int l_rawset(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checkany(L, 2);
    luaL_checkany(L, 3);
    lua_settop(L, 3);
    if (lua_getmetatable(L, 1)) {
        if (!is_scripts_own(L))
            return mbl_sandbox_refuse(
                L, "rawset can't change a library table or an object of the engine");
        lua_pop(L, 1);
    }
    lua_rawset(L, 1);
    return 1;
}

static int l_dump(lua_State *L)
{
    return mbl_sandbox_refuse(L, "\"string.dump\" is not available: bytecode is never loaded");
}

/* string.rep as Lua's, which spins 2^63 times over an empty string. */
static int l_rep(lua_State *L)
{
    size_t len, sep_len;
    const char *text = luaL_checklstring(L, 1, &len);
    lua_Integer n = luaL_checkinteger(L, 2);
    const char *sep = luaL_optlstring(L, 3, "", &sep_len);
    if (n <= 0 || len + sep_len == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    if ((uint64_t)n > (uint64_t)PTRDIFF_MAX / (len + sep_len))
        return luaL_error(L, "resulting string too large");
    luaL_Buffer buffer;
    size_t total = (size_t)n * len + (size_t)(n - 1) * sep_len;
    char *out = luaL_buffinitsize(L, &buffer, total);
    for (; n > 1; n--) {
        memcpy(out, text, len);
        memcpy(out + len, sep, sep_len);
        out += len + sep_len;
    }
    memcpy(out, text, len);
    luaL_pushresultsize(&buffer, total);
    return 1;
}

void mbl_sandbox_open_lib(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"guard", l_guard},
        {"pcall", l_pcall},
        {"xpcall", l_xpcall},
        {NULL, NULL},
    };
    static const luaL_Reg tables[] = {
        {"getmetatable", l_getmetatable},
        {"setmetatable", l_setmetatable},
        {"rawset", l_rawset},
        {NULL, NULL},
    };
    static const luaL_Reg coroutine[] = {
        {"close", l_close},   {"create", l_create},   {"isyieldable", l_isyieldable},
        {"resume", l_resume}, {"running", l_running}, {"wrap", l_wrap},
        {"yield", l_yield},   {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
    lua_newtable(L); /* metatables set by scripts, weak */
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    luaL_setfuncs(L, tables, 1);
    luaL_newlib(L, coroutine);
    lua_setfield(L, -2, "coroutine");

    /* Methods of strings are looked up in the state's one string table, so what must not be
     * reachable from a script can't be in it. */
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, "string") == LUA_TTABLE) {
        lua_pushcfunction(L, l_dump);
        lua_setfield(L, -2, "dump");
        lua_pushcfunction(L, l_rep);
        lua_setfield(L, -2, "rep");
    }
    lua_pop(L, 2);
}
