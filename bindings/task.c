/*
 * task.c - tasks as Lua coroutines (module moonbird.native.task).
 *
 * An mbl_task is malloc'd when it is spawned and freed when its coroutine has ended; the Lua handle
 * points to it until then. Coroutines are resumed in one place only, resume_task(), from the
 * scheduler's drain; a libuv callback never reaches Lua.
 */
#include "bindings/task.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/error.h"
#include "bindings/natives.h"
#include "bindings/sandbox.h"

#define HANDLE "moonbird.task"

typedef struct mbl_task {
    mb_task base; /* first: the scheduler hands this pointer back */
    lua_State *main;
    lua_State *co;
    int co_ref;
    int handle_ref; /* keeps the handle while the task lives */
    mb_wait park;
    mb_wait sleep;
    mb_timer *timer;
    struct mbl_task *prev_alive; /* list of all tasks that have not ended */
    struct mbl_task *next_alive;
} mbl_task;

typedef struct task_handle {
    mbl_task *task; /* NULL once it has ended */
} task_handle;

static mb_sched *the_sched;
static mbl_task *alive;

/* Signals seen and not yet told to Lua, and who waits for them. */
static int pending_signal;
static mb_wait signal_wait = {NULL, true, NULL};

mb_sched *mbl_sched(void)
{
    if (!the_sched)
        the_sched = mb_sched_new();
    return the_sched;
}

void mbl_sched_shutdown(void)
{
    mb_sched_free(the_sched);
    the_sched = NULL;
}

void *mbl_yield_sentinel(void)
{
    static char sentinel;
    return &sentinel;
}

static mbl_task *current(lua_State *L)
{
    mb_task *task = mb_sched_current(mbl_sched());
    if (!task)
        luaL_error(L, "this call waits, and can only be made inside a task");
    return (mbl_task *)task;
}

int mbl_await(lua_State *L, mb_wait *wait, lua_KFunction k, lua_KContext ctx)
{
    if (wait->done)
        return k(L, LUA_YIELD, ctx);
    mb_task *task = &current(L)->base;
    if (!mbl_sandbox_can_wait(L))
        luaL_error(L, "this call waits, and can't be made here (inside a metamethod, a sort or a "
                      "gsub callback)");
    mb_task_await(task, wait);
    lua_pushlightuserdata(L, mbl_yield_sentinel());
    return lua_yieldk(L, 1, ctx, k);
}

bool mbl_take_cancel(lua_State *L)
{
    mb_task *task = mb_sched_current(mbl_sched());
    mb_code code = task ? mb_task_take_cancel(task) : MB_OK;
    if (code == MB_OK)
        return false;
    mb_error err = MB_ERROR_INIT;
    mb_error_set(&err, code, "%s", code == MB_TIMEOUT ? "the time allowed is over" : "interrupted");
    mbl_fail(L, &err);
    return true;
}

/* Life ---------------------------------------------------------------------------------------------- */

static void end_task(mbl_task *task)
{
    lua_State *L = task->main;
    if (task->timer)
        mb_timer_close(&task->timer);
    mb_task_drop(&task->base);
    if (task->prev_alive)
        task->prev_alive->next_alive = task->next_alive;
    else
        alive = task->next_alive;
    if (task->next_alive)
        task->next_alive->prev_alive = task->prev_alive;
    lua_rawgeti(L, LUA_REGISTRYINDEX, task->handle_ref);
    task_handle *handle = lua_touserdata(L, -1);
    if (handle)
        handle->task = NULL;
    lua_pop(L, 1);
    luaL_unref(L, LUA_REGISTRYINDEX, task->handle_ref);
    luaL_unref(L, LUA_REGISTRYINDEX, task->co_ref);
    free(task);
}

void mbl_tasks_abandon(void)
{
    while (alive)
        end_task(alive);
}

static bool resume_task(mb_task *base)
{
    mbl_task *task = (mbl_task *)base;
    int results = 0;
    mbl_watchdog_enter(NULL, 0);
    int status = lua_resume(task->co, task->main, lua_status(task->co) == LUA_OK ? 1 : 0, &results);
    mbl_watchdog_leave();
    if (status == LUA_YIELD) {
        lua_pop(task->co, results);
        if (base->state != MB_TASK_RUNNING)
            return true;
        /* A plain yield at the top of a task: nobody would ever wake it. */
        fprintf(stderr, "moonbird: internal error: a task yielded without waiting\n");
        abort();
    }
    if (status != LUA_OK) {
        /* core/task.lua catches everything inside the coroutine; this is the backstop. */
        const char *message = lua_tostring(task->co, -1);
        fprintf(stderr, "moonbird: internal error: %s\n", message ? message : "(no message)");
        lua_resetthread(task->co);
    }
    end_task(task);
    return false;
}

/* spawn(fn) -> handle. The coroutine starts in the next turn of the scheduler. */
static int l_task_spawn(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    task_handle *handle = lua_newuserdatauv(L, sizeof *handle, 1);
    handle->task = NULL;
    luaL_setmetatable(L, HANDLE);
    lua_State *co = lua_newthread(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    lua_State *main = lua_tothread(L, -1);
    lua_pop(L, 1);
    /* The body gets its handle as argument, so that it needs no upvalue of its own. */
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushvalue(L, 2);
    lua_xmove(L, co, 1);
    int co_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, 2);
    int handle_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    mbl_task *task = mb_calloc(1, sizeof *task);
    task->main = main;
    task->co = co;
    task->co_ref = co_ref;
    task->handle_ref = handle_ref;
    task->next_alive = alive;
    if (alive)
        alive->prev_alive = task;
    alive = task;
    mb_task_start(mbl_sched(), &task->base, resume_task);
    handle->task = task;
    return 1;
}

static task_handle *check_handle(lua_State *L)
{
    return luaL_checkudata(L, 1, HANDLE);
}

/* handle:alive() */
static int l_task_alive(lua_State *L)
{
    lua_pushboolean(L, check_handle(L)->task != NULL);
    return 1;
}

/* handle:cancel([code_name]): asks the task to stop ("interrupted" by default, or "timeout"). */
static int l_task_cancel(lua_State *L)
{
    static const char *const names[] = {"interrupted", "timeout", NULL};
    static const mb_code codes[] = {MB_INTERRUPTED, MB_TIMEOUT};
    task_handle *handle = check_handle(L);
    mb_code code = codes[luaL_checkoption(L, 2, "interrupted", names)];
    if (handle->task)
        mb_task_cancel(&handle->task->base, code);
    return 0;
}

/* current() -> the running task's handle */
static int l_task_current(lua_State *L)
{
    lua_rawgeti(L, LUA_REGISTRYINDEX, current(L)->handle_ref);
    return 1;
}

/* take_cancel() -> the error of a request to stop that no wait has taken yet, or nil */
static int l_task_take_cancel(lua_State *L)
{
    /* mbl_take_cancel() pushes nil and the error; the error is on top. */
    return mbl_take_cancel(L) ? 1 : 0;
}

/* Waiting ------------------------------------------------------------------------------------------- */

static int park_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    mbl_task *task = (mbl_task *)ctx;
    bool woken = task->park.done;
    mb_wait_begin(&task->park);
    if (!woken && mbl_take_cancel(L))
        return 2;
    lua_pushboolean(L, true);
    return 1;
}

/* park() -> true when woken, or nil, err when cancelled. A wake before the park is not lost. */
static int l_task_park(lua_State *L)
{
    mbl_task *task = current(L);
    return mbl_await(L, &task->park, park_k, (lua_KContext)task);
}

/* handle:wake(): ends the task's park(). */
static int l_task_wake(lua_State *L)
{
    task_handle *handle = check_handle(L);
    if (handle->task)
        mb_wait_finish(&handle->task->park);
    return 0;
}

static void on_sleep_over(void *owner)
{
    mbl_task *task = owner;
    mb_wait_finish(&task->sleep);
}

static int sleep_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    mbl_task *task = (mbl_task *)ctx;
    if (!task->sleep.done) {
        mb_timer_stop(task->timer);
        if (mbl_take_cancel(L))
            return 2;
    }
    lua_pushboolean(L, true);
    return 1;
}

/* sleep(ms) -> true, or nil, err when cancelled. */
static int l_task_sleep(lua_State *L)
{
    lua_Integer ms = luaL_checkinteger(L, 1);
    mbl_task *task = current(L);
    if (!task->timer)
        task->timer = mb_timer_new(mb_sched_loop(mbl_sched()), on_sleep_over, task);
    mb_wait_begin(&task->sleep);
    mb_timer_start(task->timer, ms > 0 ? (uint64_t)ms : 0);
    return mbl_await(L, &task->sleep, sleep_k, (lua_KContext)task);
}

/* now() -> milliseconds of the loop's monotonic clock. */
static int l_task_now(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)mb_loop_now(mb_sched_loop(mbl_sched())));
    return 1;
}

/* Signals ------------------------------------------------------------------------------------------- */

static void on_signal(void *owner, int signum)
{
    (void)owner;
    pending_signal = signum;
    mb_wait_finish(&signal_wait);
}

static int wait_signal_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    (void)ctx;
    if (!pending_signal && mbl_take_cancel(L))
        return 2;
    lua_pushstring(L, pending_signal == SIGTERM ? "SIGTERM" : "SIGINT");
    pending_signal = 0;
    mb_wait_begin(&signal_wait);
    return 1;
}

/* wait_signal() -> "SIGINT" | "SIGTERM". One task at a time may wait. From the first call on these
 * signals no longer kill the process. */
static int l_task_wait_signal(lua_State *L)
{
    mb_loop_on_signal(mb_sched_loop(mbl_sched()), on_signal, NULL);
    signal_wait.done = pending_signal != 0;
    return mbl_await(L, &signal_wait, wait_signal_k, 0);
}

/* Running ------------------------------------------------------------------------------------------- */

/* turn(): one turn of the scheduler; only for the main program, outside any task. */
static int l_task_turn(lua_State *L)
{
    if (mb_sched_current(mbl_sched()))
        return luaL_error(L, "the scheduler is already turning");
    mb_sched_turn(mbl_sched());
    return 0;
}

/* in_task() -> whether the caller runs inside a task. */
static int l_task_in_task(lua_State *L)
{
    lua_pushboolean(L, mb_sched_current(mbl_sched()) != NULL);
    return 1;
}

int luaopen_moonbird_native_task(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"alive", l_task_alive}, {"cancel", l_task_cancel}, {"wake", l_task_wake}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"spawn", l_task_spawn},
                                         {"current", l_task_current},
                                         {"take_cancel", l_task_take_cancel},
                                         {"park", l_task_park},
                                         {"sleep", l_task_sleep},
                                         {"now", l_task_now},
                                         {"wait_signal", l_task_wait_signal},
                                         {"turn", l_task_turn},
                                         {"in_task", l_task_in_task},
                                         {NULL, NULL}};
    if (luaL_newmetatable(L, HANDLE)) {
        lua_newtable(L);
        luaL_setfuncs(L, methods, 0);
        lua_setfield(L, -2, "__index");
        lua_pushboolean(L, false);
        lua_setfield(L, -2, "__metatable");
    }
    luaL_newlib(L, functions);
    lua_pushlightuserdata(L, mbl_yield_sentinel());
    lua_setfield(L, -2, "SENTINEL");
    return 1;
}
