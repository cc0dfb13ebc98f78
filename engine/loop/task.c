/*
 * task.c - the scheduler: a ready queue drained between turns of the event loop.
 */
#include "engine/loop/task.h"

#include <assert.h>
#include <stdlib.h>

/* How many tasks may run between two looks at the sockets (the bound keeps both sides fair). */
#define DRAIN_LIMIT 256

struct mb_sched {
    mb_loop *loop;
    mb_task *first;
    mb_task *last;
    mb_task *current;
};

mb_sched *mb_sched_new(void)
{
    mb_sched *sched = mb_calloc(1, sizeof *sched);
    sched->loop = mb_loop_new();
    return sched;
}

void mb_sched_free(mb_sched *sched)
{
    if (!sched)
        return;
    mb_loop_free(sched->loop);
    free(sched);
}

mb_loop *mb_sched_loop(mb_sched *sched)
{
    return sched->loop;
}

mb_task *mb_sched_current(mb_sched *sched)
{
    return sched->current;
}

static void ready_push(mb_task *task)
{
    mb_sched *sched = task->sched;
    task->state = MB_TASK_READY;
    task->next = NULL;
    task->prev = sched->last;
    if (sched->last)
        sched->last->next = task;
    else
        sched->first = task;
    sched->last = task;
}

static void ready_remove(mb_task *task)
{
    mb_sched *sched = task->sched;
    if (task->prev)
        task->prev->next = task->next;
    else
        sched->first = task->next;
    if (task->next)
        task->next->prev = task->prev;
    else
        sched->last = task->prev;
    task->prev = task->next = NULL;
}

static void run(mb_sched *sched, mb_task *task)
{
    ready_remove(task);
    task->state = MB_TASK_RUNNING;
    sched->current = task;
    bool goes_on = task->resume(task);
    sched->current = NULL;
    /* A body that ended may have freed the task: touch it only when it goes on. */
    if (goes_on)
        assert(task->state == MB_TASK_WAITING || task->state == MB_TASK_READY);
}

void mb_sched_turn(mb_sched *sched)
{
    mb_loop_turn(sched->loop, sched->first == NULL);
    for (int i = 0; i < DRAIN_LIMIT && sched->first; i++)
        run(sched, sched->first);
}

void mb_task_start(mb_sched *sched, mb_task *task, mb_task_resume_fn resume)
{
    *task = (mb_task){.sched = sched, .resume = resume};
    ready_push(task);
}

static void wake(mb_task *task)
{
    task->wait->task = NULL;
    task->wait = NULL;
    ready_push(task);
}

/* Asks what a cancelled task waits for to end early. */
static void nudge(mb_task *task)
{
    if (task->wait->cancel)
        task->wait->cancel(task->wait);
    else
        wake(task);
}

void mb_task_await(mb_task *task, mb_wait *wait)
{
    assert(task->state == MB_TASK_RUNNING && !wait->task);
    if (wait->done) {
        ready_push(task);
        return;
    }
    task->state = MB_TASK_WAITING;
    task->wait = wait;
    wait->task = task;
    if (task->cancel != MB_OK)
        nudge(task);
}

void mb_task_cancel(mb_task *task, mb_code code)
{
    if (task->state == MB_TASK_DONE || task->cancel != MB_OK)
        return;
    task->cancel = code;
    if (task->state == MB_TASK_WAITING)
        nudge(task);
}

mb_code mb_task_take_cancel(mb_task *task)
{
    mb_code code = task->cancel;
    task->cancel = MB_OK;
    return code;
}

void mb_task_drop(mb_task *task)
{
    if (task->state == MB_TASK_READY)
        ready_remove(task);
    if (task->wait) {
        task->wait->task = NULL;
        task->wait = NULL;
    }
    task->state = MB_TASK_DONE;
}

void mb_wait_begin(mb_wait *wait)
{
    wait->done = false;
}

void mb_wait_finish(mb_wait *wait)
{
    wait->done = true;
    if (wait->task)
        wake(wait->task);
}
