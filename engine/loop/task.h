/*
 * task.h - tasks and the one way they wait.
 *
 * A task is something the scheduler can resume: in the binary a Lua coroutine, in unit tests a C
 * function. An operation (a query, a sleep, a child process) embeds an mb_wait. Its callback calls
 * mb_wait_finish(), which only marks the waiting task ready; the task runs in the next drain of
 * mb_sched_turn(), never inside a callback. That kills re-entrancy and starvation together.
 *
 * Cancelling a task is a flag and a nudge: the wait's `cancel` asks the operation to end early, the
 * operation still finishes in its own way, the task wakes, finds the flag by mb_task_take_cancel()
 * and unwinds. The flag is taken once, so the clean-up that follows (ROLLBACK) can wait as usual.
 */
#ifndef MB_TASK_H
#define MB_TASK_H

#include "engine/base/error.h"
#include "engine/loop/loop.h"

typedef struct mb_sched mb_sched;
typedef struct mb_task mb_task;
typedef struct mb_wait mb_wait;

struct mb_wait {
    mb_task *task; /* who waits; NULL while nobody does */
    bool done;
    void (*cancel)(mb_wait *wait); /* NULL: the task just wakes */
};

typedef enum mb_task_state {
    MB_TASK_READY,
    MB_TASK_RUNNING,
    MB_TASK_WAITING,
    MB_TASK_DONE
} mb_task_state;

/* Resumes the task's body. Returns true while it waits again, false when it has ended. */
typedef bool (*mb_task_resume_fn)(mb_task *task);

struct mb_task {
    mb_sched *sched;
    mb_task_resume_fn resume;
    mb_task_state state;
    mb_wait *wait;
    mb_code cancel; /* MB_OK, or why the task is to stop; taken by mb_task_take_cancel() */
    mb_task *prev;
    mb_task *next; /* ready queue */
};

mb_sched *mb_sched_new(void);
/* Every task must have ended or been forgotten with mb_task_drop(). */
void mb_sched_free(mb_sched *sched);
mb_loop *mb_sched_loop(mb_sched *sched);
/* The task that runs now, or NULL. */
mb_task *mb_sched_current(mb_sched *sched);
/* One turn: wait for events if nothing is ready, then resume what is ready. */
void mb_sched_turn(mb_sched *sched);

/* Puts a new task (memory owned by the caller) at the end of the ready queue. */
void mb_task_start(mb_sched *sched, mb_task *task, mb_task_resume_fn resume);
/* Says that the running task now waits for `wait`; the caller then leaves the body (yields). */
void mb_task_await(mb_task *task, mb_wait *wait);
/* Asks the task to stop, for the reason `code`; only the first reason counts. */
void mb_task_cancel(mb_task *task, mb_code code);
/* The reason why the task is to stop, once; MB_OK if there is none. */
mb_code mb_task_take_cancel(mb_task *task);
/* Forgets a task that will never be resumed again. */
void mb_task_drop(mb_task *task);

void mb_wait_begin(mb_wait *wait);
void mb_wait_finish(mb_wait *wait);

#endif
