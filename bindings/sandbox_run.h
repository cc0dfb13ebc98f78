/*
 * sandbox_run.h - what the files of the sandbox share: a run, its limits, positions. Private to
 * bindings/sandbox*.c; others use sandbox.h.
 *
 * A *run* is one call of a script's function, in a coroutine of its own. Each stretch between its
 * being resumed and its next wait is a *burst*: burst_enter() makes the run the allocator's current
 * one (mbl_alloc_state.run), which is how the hook, the allocator and the functions of scripts find
 * it. lua_resume() never jumps past its caller, so enter and leave always pair.
 *
 * The run's userdata owns the struct; its coroutine is user value 1. What the hook and the
 * allocator record is kept in fixed buffers, because neither may allocate.
 */
#ifndef MBL_SANDBOX_RUN_H
#define MBL_SANDBOX_RUN_H

#include <lua.h>
#include <luaconf.h>
#include <stdbool.h>
#include <stdint.h>

#include "bindings/sandbox.h"

#define MBL_QUANTUM 1000 /* instructions between two hook calls */

/* A place in the source of a script. */
typedef struct mbl_place {
    char file[256];
    char short_file[LUA_IDSIZE]; /* as messages of Lua name it */
    int line;                    /* 0: not known */
    char traceback[1536];
} mbl_place;

/* The limit that a run has passed: from then on everything raises until it has unwound. */
typedef enum mbl_exceeded {
    MBL_WITHIN,
    MBL_INSTRUCTIONS,
    MBL_TIME,
    MBL_INTERRUPTED, /* no limit, but treated as one: a signal came while the script computed */
} mbl_exceeded;

typedef struct mbl_run {
    lua_State *co;
    lua_State *running; /* innermost coroutine of the burst */
    int64_t left;       /* instructions */
    bool counted;       /* there is an instruction limit */
    mbl_exceeded exceeded;
    bool refused; /* the allocator refused something */
    bool open;
    bool called;
    unsigned closing; /* depth of coroutines being closed */
    unsigned nowait;  /* resumes on the C stack that can't pass a wait on */
    unsigned seconds; /* CPU time for one burst, 0 = not watched */
    size_t memory;    /* 0 = not limited */
    struct mbl_run *outer_run;
    size_t outer_limit;
    mbl_place at;         /* of the error, or of where the limit was passed */
    mbl_place refused_at; /* of the last refused allocation */
    char name[256];
} mbl_run;

/* The accounting of L's state, NULL when it was not made with mbl_alloc. */
mbl_alloc_state *mbl_alloc_state_of(lua_State *L);
/* The run whose burst is under way, or NULL. */
mbl_run *mbl_run_current(lua_State *L);

/* Reads the innermost frame of script code and the frames above it. Where there is none the place
 * is not known, as it is no place of ours that a user should look at; the traceback has our frames.
 * Allocates nothing; L may be dead by an error. */
void mbl_place_capture(mbl_place *at, lua_State *L);
/* Whether the value at `index` is a table with the metatable "moonbird.error". */
bool mbl_is_engine_error(lua_State *L, int index);
/* If the value on top of L is an engine error without a file: gives it the position of the
 * innermost script frame of `of`. May raise (memory). */
void mbl_annotate(lua_State *L, lua_State *of);
/* Raises an error of code "sandbox" (printf of lua_pushfstring). */
int mbl_sandbox_refuse(lua_State *L, const char *fmt, ...);

/* Charges a run that is counted; raises when it has passed a limit. */
void mbl_run_spend(lua_State *L, mbl_run *run, int instructions);
/* Ends L: raises now and, should a pcall catch that, again at each following instruction. */
int mbl_run_kill(lua_State *L);
/* Sets or removes the hook of a coroutine that is about to run for `run` (NULL: for no run). */
void mbl_run_guard(lua_State *co, const mbl_run *run);

/* Whether co's `count` yielded values are an engine wait. */
bool mbl_yielded_sentinel(lua_State *co, int count);
/* Yields the wait of an inner coroutine from L; k continues. */
int mbl_pass_wait_on(lua_State *L, lua_KContext ctx, lua_KFunction k);

/* Adds pcall, xpcall, guard, getmetatable, setmetatable, rawset and the table `coroutine` to the
 * table on top, and replaces string.dump and string.rep. */
void mbl_sandbox_open_lib(lua_State *L);

#endif
