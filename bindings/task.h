/*
 * task.h - how native functions wait: by yielding the running task's coroutine to the scheduler.
 */
#ifndef MBL_TASK_H
#define MBL_TASK_H

#include <lua.h>

#include "engine/loop/task.h"

/* The process's one scheduler, made on first use; freed by mbl_sched_shutdown() after lua_close(). */
mb_sched *mbl_sched(void);
void mbl_sched_shutdown(void);
/* Forgets the tasks that still wait at the end of the program; call it before lua_close(). */
void mbl_tasks_abandon(void);

/* The light userdata that engine waits yield, so that a patched coroutine.resume can tell them from a
 * script's own yields and pass them on to the scheduler. */
void *mbl_yield_sentinel(void);

/* Waits for `wait`, then goes on in `k` (called at once when it is done already): use as
 * `return mbl_await(L, wait, k, ctx);`. `k` re-checks wait->done: a cancelled task may wake before.
 * Raises when called outside a task. What the operation needs must be reachable from the Lua stack. */
int mbl_await(lua_State *L, mb_wait *wait, lua_KFunction k, lua_KContext ctx);

/* If the running task was asked to stop: takes the request, pushes nil and an error of that code and
 * returns true. Call it when an operation failed or was left early. */
bool mbl_take_cancel(lua_State *L);

#endif
