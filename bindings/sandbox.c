/*
 * sandbox.c - runs of untrusted Lua within limits (module moonbird.native.sandbox). sandbox_run.h
 * tells how the parts work together.
 */
#include "bindings/sandbox.h"

#include <lauxlib.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "bindings/error.h"
#include "bindings/natives.h"
#include "bindings/sandbox_run.h"
#include "bindings/task.h"

#define RUN "moonbird.sandbox.run"
#define MAX_RESULTS 10000 /* of a script: the engine's own stack has limits too */

static void burst_enter(mbl_alloc_state *state, mbl_run *run)
{
    run->outer_run = state->run;
    run->outer_limit = state->limit;
    run->running = run->co;
    state->run = run;
    if (run->memory) {
        /* Which run garbage belongs to can't be told, so runs that are open at the same time share
         * the sum of their allowances, and none may grow by more than its own in one burst. */
        size_t shared = state->floor + state->allowance;
        size_t own = state->used + run->memory;
        size_t limit = own < shared ? own : shared;
        state->limit = state->limit && state->limit < limit ? state->limit : limit;
    }
    if (run->seconds)
        mbl_watchdog_enter(run->name, run->seconds);
}

static void burst_leave(mbl_alloc_state *state, mbl_run *run)
{
    if (run->seconds)
        mbl_watchdog_leave();
    state->run = run->outer_run;
    state->limit = run->outer_limit;
    run->running = NULL;
}

/* The message handler around a script's function. */
static int on_error(lua_State *L)
{
    mbl_run *run = mbl_run_current(L);
    lua_settop(L, 1);
    if (run->exceeded)
        return 1;
    mbl_place_capture(&run->at, L);
    if (mbl_is_engine_error(L, 1))
        mbl_annotate(L, L);
    else if (luaL_getmetafield(L, 1, "__tostring") != LUA_TNIL)
        luaL_tolstring(L, 1, NULL); /* here, where the script's limits hold, not in the engine */
    else
        lua_settop(L, 1);
    return 1;
}

/* Stack: handler, true, results... or handler, true, error. Returns true, results... or false,
 * error. */
static int body_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)ctx;
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_pushboolean(L, false);
        lua_replace(L, 2);
    }
    return lua_gettop(L) - 1;
}

/* The first function of a run's coroutine. The call is protected in here, so that on an error
 * <close> variables of the script are closed where they can still wait for the database. */
static int body(lua_State *L)
{
    lua_pushcfunction(L, on_error);
    lua_insert(L, 1);
    lua_pushboolean(L, true); /* now: there may be no room beside the results */
    lua_insert(L, 2);
    return body_k(L, lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 1, 0, body_k), 0);
}

/* new(fn, name, instructions, memory, seconds): a run of fn; numbers are positive or nil (no
 * limit). */
static int l_new(lua_State *L)
{
    mbl_alloc_state *state = mbl_alloc_state_of(L);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    const char *name = luaL_checkstring(L, 2);
    lua_Integer instructions = luaL_optinteger(L, 3, 0);
    lua_Integer memory = luaL_optinteger(L, 4, 0);
    lua_Integer seconds = luaL_optinteger(L, 5, 0);
    luaL_argcheck(L, instructions >= 0, 3, "negative limit");
    luaL_argcheck(L, memory >= 0, 4, "negative limit");
    luaL_argcheck(L, seconds >= 0 && seconds <= INT32_MAX, 5, "out of range");
    mbl_run *run = lua_newuserdatauv(L, sizeof *run, 1);
    memset(run, 0, sizeof *run);
    luaL_setmetatable(L, RUN);
    run->co = lua_newthread(L);
    lua_setiuservalue(L, -2, 1);
    run->left = instructions;
    run->counted = instructions > 0;
    run->memory = (size_t)memory;
    run->seconds = (unsigned)seconds;
    snprintf(run->name, sizeof run->name, "%s", name);
    mbl_run_guard(run->co, run);
    lua_pushcfunction(run->co, body);
    lua_pushvalue(L, 1);
    lua_xmove(L, run->co, 1);
    run->open = true;
    if (run->memory) {
        if (state->active++ == 0)
            state->floor = state->used;
        state->allowance += run->memory;
    }
    return 1;
}

static void push_place(lua_State *L, const mbl_place *at)
{
    if (at->line > 0) {
        lua_pushstring(L, at->file);
        lua_pushinteger(L, at->line);
    }
    else {
        lua_pushnil(L);
        lua_pushnil(L);
    }
    lua_pushstring(L, at->traceback);
    lua_pushstring(L, at->short_file);
}

/* Pushes false, kind, error, file, line, traceback, short file; the error is on top of the run's
 * coroutine. */
static int push_failure(lua_State *L, mbl_run *run)
{
    static const char *const limits[] = {"", "instructions", "time", "interrupted"};
    const char *text = lua_type(run->co, -1) == LUA_TSTRING ? lua_tostring(run->co, -1) : "";
    bool memory = run->refused && strcmp(text, "not enough memory") == 0;
    lua_pushboolean(L, false);
    lua_pushstring(L, run->exceeded ? limits[run->exceeded] : memory ? "memory" : "error");
    if (run->exceeded)
        lua_pushnil(L);
    else
        lua_xmove(run->co, L, 1);
    push_place(L, memory && !run->exceeded ? &run->refused_at : &run->at);
    return 7;
}

static int call_k(lua_State *L, int status, lua_KContext ctx);

static int call_step(lua_State *L, mbl_run *run, int count)
{
    mbl_alloc_state *state = mbl_alloc_state_of(L);
    int results = 0;
    luaL_checkstack(L, LUA_MINSTACK, NULL);
    burst_enter(state, run);
    int status = lua_resume(run->co, L, count, &results);
    burst_leave(state, run);
    if (status == LUA_YIELD && mbl_yielded_sentinel(run->co, results)) {
        lua_pop(run->co, 1);
        if (!mbl_sandbox_can_wait(L))
            return luaL_error(L, "a script can wait for the engine only inside a task");
        return mbl_pass_wait_on(L, 0, call_k);
    }
    if (status == LUA_YIELD) {
        lua_pop(run->co, results);
        lua_pushliteral(run->co, "yield outside a coroutine");
        return push_failure(L, run);
    }
    if (status == LUA_OK && results > MAX_RESULTS) {
        lua_pop(run->co, results);
        lua_pushfstring(run->co, "the script returned %d values", results - 1);
        return push_failure(L, run);
    }
    if (status == LUA_OK && !run->exceeded && lua_toboolean(run->co, -results)) {
        luaL_checkstack(L, results, "too many results of a script");
        lua_xmove(run->co, L, results);
        return results;
    }
    return push_failure(L, run);
}

static int call_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status, (void)ctx;
    lua_settop(L, 1);
    return call_step(L, lua_touserdata(L, 1), 0);
}

/* call(run, ...): true, results... or false, kind ("instructions", "time", "interrupted", "memory", "error"),
 * error, file, line, traceback, short file. Waits of the script wait here. A run is called once. */
static int l_call(lua_State *L)
{
    mbl_run *run = luaL_checkudata(L, 1, RUN);
    luaL_argcheck(L, run->open && !run->called, 1, "the run was called before, or is closed");
    int count = lua_gettop(L) - 1;
    if (!lua_checkstack(run->co, count))
        return luaL_error(L, "too many arguments");
    run->called = true;
    lua_xmove(L, run->co, count);
    return call_step(L, run, count + 1);
}

static bool settle(lua_State *L, mbl_run *run)
{
    mbl_alloc_state *state = mbl_alloc_state_of(L);
    if (!run->open)
        return false;
    run->open = false;
    if (run->memory) {
        state->active--;
        state->allowance -= run->memory;
    }
    return true;
}

/* Closes a run: a script that still waits (its task was ended) has its <close> variables closed,
 * within what is left of its limits. */
static int l_run_close(lua_State *L)
{
    mbl_alloc_state *state = mbl_alloc_state_of(L);
    mbl_run *run = luaL_checkudata(L, 1, RUN);
    if (settle(L, run) && lua_status(run->co) == LUA_YIELD) {
        burst_enter(state, run);
        run->nowait++;
        lua_resetthread(run->co);
        run->nowait--;
        burst_leave(state, run);
    }
    return 0;
}

/* No script code runs in a finalizer: hooks are off there. */
static int l_run_gc(lua_State *L)
{
    settle(L, luaL_checkudata(L, 1, RUN));
    return 0;
}

/* memory(): bytes Lua holds now. */
static int l_memory(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)mbl_alloc_state_of(L)->used);
    return 1;
}

/* set_memory_limit(bytes or nil): for the whole state, beside the limits of runs. */
static int l_set_memory_limit(lua_State *L)
{
    lua_Integer limit = luaL_optinteger(L, 1, 0);
    luaL_argcheck(L, limit >= 0, 1, "negative limit");
    mbl_alloc_state_of(L)->limit = (size_t)limit;
    return 0;
}

int luaopen_moonbird_native_sandbox(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"new", l_new},
        {"call", l_call},
        {"close", l_run_close},
        {"memory", l_memory},
        {"set_memory_limit", l_set_memory_limit},
        {NULL, NULL},
    };
    if (!mbl_alloc_state_of(L))
        return luaL_error(L, "the sandbox needs a Lua state made with mbl_alloc");
    luaL_newmetatable(L, "moonbird.error");
    if (luaL_newmetatable(L, RUN)) {
        lua_pushcfunction(L, l_run_gc);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, l_run_close);
        lua_setfield(L, -2, "__close");
    }
    luaL_newlib(L, functions);
    mbl_sandbox_open_lib(L);
    lua_pushlightuserdata(L, mbl_yield_sentinel());
    lua_setfield(L, -2, "sentinel");
    return 1;
}
