/*
 * loop.h - the event loop: file descriptors, timers, signals and blocking work, over libuv.
 *
 * The only folder that knows libuv. One loop, one thread. A callback given here runs inside
 * mb_loop_turn() and may only record what happened (finish a wait, see task.h); it never runs Lua and
 * never blocks. Handles are closed asynchronously: after mb_*_close() the callback is not called again.
 */
#ifndef MB_LOOP_H
#define MB_LOOP_H

#include "engine/base/base.h"

typedef struct mb_loop mb_loop;
typedef struct mb_poll mb_poll;
typedef struct mb_timer mb_timer;

/* The loop. mb_loop_free() closes what is still open and waits for blocking work to end. */
mb_loop *mb_loop_new(void);
void mb_loop_free(mb_loop *loop);
/* Waits for events (not at all when `wait` is false) and runs their callbacks. */
void mb_loop_turn(mb_loop *loop, bool wait);
/* Monotonic clock, milliseconds; cached per turn. */
uint64_t mb_loop_now(const mb_loop *loop);

/* Watches a file descriptor that the caller owns. `failed`: the descriptor is in error, and is
 * watched no more until mb_poll_set() is called. */
typedef void (*mb_poll_fn)(void *owner, bool readable, bool writable, bool failed);
mb_poll *mb_poll_new(mb_loop *loop, int fd, mb_poll_fn fn, void *owner);
void mb_poll_set(mb_poll *poll, bool readable, bool writable);
void mb_poll_close(mb_poll **poll);

/* A one-shot timer. */
typedef void (*mb_timer_fn)(void *owner);
mb_timer *mb_timer_new(mb_loop *loop, mb_timer_fn fn, void *owner);
void mb_timer_start(mb_timer *timer, uint64_t ms);
void mb_timer_stop(mb_timer *timer);
void mb_timer_close(mb_timer **timer);

/* Runs `work` in a worker thread, then `done` in the loop's thread. Can't be taken back: `arg` must
 * live until `done` was called. */
void mb_work_run(mb_loop *loop, void (*work)(void *arg), void (*done)(void *arg), void *arg);

/* Calls `fn` for each SIGINT and SIGTERM from now on. */
typedef void (*mb_signal_fn)(void *owner, int signum);
void mb_loop_on_signal(mb_loop *loop, mb_signal_fn fn, void *owner);

/* Whether a SIGINT or SIGTERM waits for the loop to turn: for code that computes for long. */
bool mb_loop_signalled(void);

/* libuv's version, "1.44.2". */
const char *mb_loop_library_version(void);

/* For the other files of this folder. */
struct uv_loop_s *mb_loop_uv(mb_loop *loop);

#endif
