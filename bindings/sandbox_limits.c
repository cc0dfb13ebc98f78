/*
 * sandbox_limits.c - what holds a run within its limits: the allocator and the count hook, and how
 * they find where in a script they struck.
 */
#include <lauxlib.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "bindings/sandbox_run.h"
#include "bindings/task.h"
#include "engine/base/block.h"
#include "engine/loop/loop.h"

#define MAX_LEVELS 200 /* frames looked at for a position: lua_getstack() is linear in the level   \
                        */
#define MAX_SHOWN 12   /* frames in a traceback */

static const char killed_address; /* raised when a limit was passed; no script ever sees it */

/* Allocator ------------------------------------------------------------------------------------ */

/* AddressSanitizer sees what malloc gave out, and so a use of what was freed. */
#ifdef __SANITIZE_ADDRESS__
#define give(ptr, old) free(ptr)
#define resize(ptr, old, wanted) realloc(ptr, wanted)
#else
#define give(ptr, old) mb_block_give(ptr, old)
#define resize(ptr, old, wanted) mb_block_resize(ptr, old, wanted)
#endif

void *mbl_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    mbl_alloc_state *state = ud;
    size_t old = ptr ? osize : 0; /* without a block, osize is a type tag */
    if (nsize == 0) {
        give(ptr, old);
        state->used -= old;
        return NULL;
    }
    void *block = NULL;
    size_t room = state->limit > state->used ? state->limit - state->used : 0;
    if (nsize <= old || state->limit == 0 || nsize - old <= room) {
        block = resize(ptr, old, nsize);
        if (!block && nsize <= old)
            block = ptr; /* Lua relies on shrinking to succeed; the old block will do */
    }
    if (block) {
        state->used = state->used - old + nsize;
        return block;
    }
    state->refused = true;
    if (state->run) {
        /* No message handler runs for LUA_ERRMEM and the stack is gone when the error is seen, so
         * the position is read here. Lua forbids its API in an allocator because calls may allocate
         * or collect; lua_getstack() and lua_getinfo("nSl") only read. */
        state->run->refused = true;
        mbl_place at;
        mbl_place_capture(&at, state->run->running);
        if (at.line > 0) /* what is refused while the stack unwinds has no place any more */
            state->run->refused_at = at;
    }
    return NULL;
}

mbl_alloc_state *mbl_alloc_state_of(lua_State *L)
{
    void *ud = NULL;
    return lua_getallocf(L, &ud) == mbl_alloc ? ud : NULL;
}

mbl_run *mbl_run_current(lua_State *L)
{
    return mbl_alloc_state_of(L)->run;
}

/* Positions ------------------------------------------------------------------------------------ */

/* Chunks of scripts are named "=file" (core/sandbox.lua), those of the engine "@file". */
static bool is_script(const lua_Debug *ar)
{
    return ar->currentline > 0 && *ar->source == '=';
}

static const char *file_of(const lua_Debug *ar)
{
    return *ar->source == '=' || *ar->source == '@' ? ar->source + 1 : ar->short_src;
}

void mbl_place_capture(mbl_place *at, lua_State *L)
{
    lua_Debug ar;
    int first = -1;
    bool script = false;
    at->line = 0;
    at->file[0] = at->short_file[0] = at->traceback[0] = '\0';
    for (int level = 0; !script && level < MAX_LEVELS && lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sl", &ar);
        script = is_script(&ar);
        if (script || (first < 0 && ar.currentline > 0))
            first = level;
        if (script) {
            at->line = ar.currentline;
            snprintf(at->file, sizeof at->file, "%s", file_of(&ar));
            snprintf(at->short_file, sizeof at->short_file, "%s", ar.short_src);
        }
    }
    size_t used = 0;
    for (int level = first, shown = 0; first >= 0 && shown < MAX_SHOWN; level++) {
        if (!lua_getstack(L, level, &ar))
            break;
        lua_getinfo(L, "nSl", &ar);
        if (ar.currentline <= 0 || (script && !is_script(&ar)))
            continue;
        char what[96] = "a function";
        if (*ar.what == 'm')
            snprintf(what, sizeof what, "main chunk");
        else if (*ar.namewhat && ar.name)
            snprintf(what, sizeof what, "%s \"%s\"", ar.namewhat, ar.name);
        int n = snprintf(at->traceback + used, sizeof at->traceback - used, "%s%s:%d: in %s",
                         used ? "\n" : "", file_of(&ar), ar.currentline, what);
        if (n < 0 || (size_t)n >= sizeof at->traceback - used) {
            at->traceback[used] = '\0';
            break;
        }
        used += (size_t)n;
        shown++;
    }
}

bool mbl_is_engine_error(lua_State *L, int index)
{
    if (!lua_istable(L, index) || !lua_getmetatable(L, index))
        return false;
    luaL_getmetatable(L, "moonbird.error");
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
}

void mbl_annotate(lua_State *L, lua_State *of)
{
    if (!mbl_is_engine_error(L, -1))
        return;
    lua_pushliteral(L, "file");
    bool known = lua_rawget(L, -2) != LUA_TNIL;
    lua_pop(L, 1);
    if (known)
        return;
    mbl_place at;
    mbl_place_capture(&at, of);
    if (at.line == 0)
        return;
    lua_pushliteral(L, "file");
    lua_pushstring(L, at.file);
    lua_rawset(L, -3);
    lua_pushliteral(L, "line");
    lua_pushinteger(L, at.line);
    lua_rawset(L, -3);
}

int mbl_sandbox_refuse(lua_State *L, const char *fmt, ...)
{
    va_list args;
    lua_createtable(L, 0, 4);
    lua_pushliteral(L, "sandbox");
    lua_setfield(L, -2, "code");
    va_start(args, fmt);
    lua_pushvfstring(L, fmt, args);
    va_end(args);
    lua_setfield(L, -2, "message");
    luaL_getmetatable(L, "moonbird.error");
    lua_setmetatable(L, -2);
    mbl_annotate(L, L);
    return lua_error(L);
}

/* Instructions --------------------------------------------------------------------------------- */

static void count_hook(lua_State *L, lua_Debug *ar);

int mbl_run_kill(lua_State *L)
{
    lua_sethook(L, count_hook, LUA_MASKCOUNT, 1);
    (void)lua_checkstack(L, 1); /* else it takes one of the slots that Lua keeps spare */
    lua_pushlightuserdata(L, (void *)&killed_address);
    return lua_error(L);
}

void mbl_run_spend(lua_State *L, mbl_run *run, int instructions)
{
    if (run->exceeded == MBL_WITHIN) {
        run->left -= instructions;
        if (run->left < 0)
            run->exceeded = MBL_INSTRUCTIONS;
        else if (run->seconds && mbl_watchdog_expired())
            run->exceeded = MBL_TIME;
        else if (mb_loop_signalled())
            run->exceeded = MBL_INTERRUPTED;
        else
            return;
        mbl_place_capture(&run->at, L);
    }
    mbl_run_kill(L);
}

static void count_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    mbl_run *run = mbl_run_current(L);
    /* A new thread inherits the hook; outside a burst, or in a run without a limit, it is not
     * wanted. */
    if (run && run->counted)
        mbl_run_spend(L, run, lua_gethookcount(L));
    else
        lua_sethook(L, NULL, 0, 0);
}

void mbl_run_guard(lua_State *co, const mbl_run *run)
{
    if (run && run->counted) {
        if (lua_gethook(co) != count_hook)
            lua_sethook(co, count_hook, LUA_MASKCOUNT, MBL_QUANTUM);
    }
    else if (lua_gethook(co) == count_hook) {
        lua_sethook(co, NULL, 0, 0);
    }
}

/* Waits ---------------------------------------------------------------------------------------- */

bool mbl_sandbox_can_wait(lua_State *L)
{
    mbl_alloc_state *state = mbl_alloc_state_of(L);
    return lua_isyieldable(L) && !(state && state->run && state->run->nowait > 0);
}

bool mbl_yielded_sentinel(lua_State *co, int count)
{
    return count == 1 && lua_islightuserdata(co, -1) &&
           lua_touserdata(co, -1) == mbl_yield_sentinel();
}

int mbl_pass_wait_on(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
    lua_pushlightuserdata(L, mbl_yield_sentinel());
    return lua_yieldk(L, 1, ctx, k);
}
