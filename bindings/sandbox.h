/*
 * sandbox.h - limits for untrusted Lua: memory (the state's allocator), instructions (a count hook)
 * and C functions that do not come back (the watchdog). The environment is
 * lua/moonbird/core/sandbox.lua.
 *
 * bindings/state.c makes the one lua_State with mbl_alloc; the module refuses to open in any other.
 */
#ifndef MBL_SANDBOX_H
#define MBL_SANDBOX_H

#include <lua.h>
#include <stdbool.h>
#include <stddef.h>

/* The accounting behind a lua_State. Zeroed (MBL_ALLOC_STATE_INIT) by its owner, who keeps it until
 * after lua_close(). Only `used`, `limit` and `refused` are for others. */
typedef struct mbl_alloc_state {
    size_t used;         /* bytes Lua holds now */
    size_t limit;        /* growth beyond is refused; 0 = none */
    bool refused;        /* set at each refusal, never unset here */
    struct mbl_run *run; /* the sandbox run whose code executes now, or NULL */
    size_t floor;        /* `used` when the first of the open limited runs began */
    size_t allowance;    /* sum of the memory limits of the open runs */
    unsigned active;     /* how many open runs have a memory limit */
} mbl_alloc_state;

#define MBL_ALLOC_STATE_INIT                                                                       \
    {                                                                                              \
        0                                                                                          \
    }

/* A lua_Alloc; `ud` is an mbl_alloc_state. Refuses (NULL, so LUA_ERRMEM after an emergency
 * collection) what would pass the limit; giving memory back never fails. */
void *mbl_alloc(void *ud, void *ptr, size_t osize, size_t nsize);

/* Whether an engine call made on L can wait: false on the main thread, inside a callback of a C
 * function (table.sort, string.gsub) and in a coroutine that was resumed from such a callback. Ask
 * before the request is sent. */
bool mbl_sandbox_can_wait(lua_State *L);

/* Bracket code that may compute for `seconds` of CPU time at most (0: as long as it likes). A
 * script's Lua code is then stopped by its hook; a C function that does not come back ends the
 * process with exit status 70, which is safe at any point. `what` names it in the message (NULL: "a
 * task") and must live until the matching leave. Calls nest; the innermost counts. Main thread
 * only; no system call but for the first with a limit, which starts the watching thread. Sandbox
 * runs bracket themselves. */
void mbl_watchdog_enter(const char *what, unsigned seconds);
void mbl_watchdog_leave(void);
/* Whether the time of the innermost bracket is up: who can stop in an orderly way does; the process
 * is ended 2 s of CPU time later. Cheap. */
bool mbl_watchdog_expired(void);

#endif
