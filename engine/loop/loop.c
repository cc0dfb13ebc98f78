/*
 * loop.c - the event loop over libuv. Each handle is malloc'd and freed in its close callback, because
 * uv_close() is asynchronous (luv's handle.c is the model for that ownership).
 */
#include "engine/loop/loop.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

struct mb_loop {
    uv_loop_t uv;
    uv_signal_t signals[2];
    bool watching_signals;
    mb_signal_fn signal_fn;
    void *signal_owner;
};

struct mb_poll {
    uv_poll_t uv;
    mb_poll_fn fn;
    void *owner;
    int events;
};

struct mb_timer {
    uv_timer_t uv;
    mb_timer_fn fn;
    void *owner;
};

typedef struct mb_work {
    uv_work_t uv;
    void (*work)(void *arg);
    void (*done)(void *arg);
    void *arg;
} mb_work;

/* libuv fails here only for want of file descriptors or by misuse: both end the process. */
static void must(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "moonbird: %s: %s\n", what, uv_strerror(rc));
        abort();
    }
}

mb_loop *mb_loop_new(void)
{
    mb_loop *loop = mb_calloc(1, sizeof *loop);
    must(uv_loop_init(&loop->uv), "event loop");
    return loop;
}

static void free_handle(uv_handle_t *handle)
{
    free(handle->data);
}

static void close_leftover(uv_handle_t *handle, void *arg)
{
    mb_loop *loop = arg;
    if (uv_is_closing(handle))
        return;
    bool embedded =
        handle == (uv_handle_t *)&loop->signals[0] || handle == (uv_handle_t *)&loop->signals[1];
    uv_close(handle, embedded ? NULL : free_handle);
}

void mb_loop_free(mb_loop *loop)
{
    if (!loop)
        return;
    uv_walk(&loop->uv, close_leftover, loop);
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    must(uv_loop_close(&loop->uv), "event loop");
    free(loop);
}

void mb_loop_turn(mb_loop *loop, bool wait)
{
    uv_run(&loop->uv, wait ? UV_RUN_ONCE : UV_RUN_NOWAIT);
}

uint64_t mb_loop_now(const mb_loop *loop)
{
    return uv_now(&loop->uv);
}

const char *mb_loop_library_version(void)
{
    return uv_version_string();
}

struct uv_loop_s *mb_loop_uv(mb_loop *loop)
{
    return &loop->uv;
}

/* File descriptors ------------------------------------------------------------------------------ */

static void on_poll(uv_poll_t *handle, int status, int events)
{
    mb_poll *poll = handle->data;
    if (status < 0)
        poll->events = 0; /* libuv has stopped watching (1.44.2: uv__poll_io, POLLERR) */
    poll->fn(poll->owner, (events & UV_READABLE) != 0, (events & UV_WRITABLE) != 0, status < 0);
}

mb_poll *mb_poll_new(mb_loop *loop, int fd, mb_poll_fn fn, void *owner)
{
    mb_poll *poll = mb_calloc(1, sizeof *poll);
    poll->fn = fn;
    poll->owner = owner;
    must(uv_poll_init(&loop->uv, &poll->uv, fd), "socket");
    poll->uv.data = poll;
    return poll;
}

void mb_poll_set(mb_poll *poll, bool readable, bool writable)
{
    int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
    if (events == poll->events)
        return;
    poll->events = events;
    if (events)
        must(uv_poll_start(&poll->uv, events, on_poll), "socket");
    else
        must(uv_poll_stop(&poll->uv), "socket");
}

void mb_poll_close(mb_poll **poll)
{
    if (!*poll)
        return;
    uv_poll_stop(&(*poll)->uv);
    uv_close((uv_handle_t *)&(*poll)->uv, free_handle);
    *poll = NULL;
}

/* Timers ---------------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *handle)
{
    mb_timer *timer = handle->data;
    /* libuv runs timers that are due before it polls; without this the turn would then sleep until some
     * other event although a task was just made ready (UV_RUN_ONCE, seen on 1.44.2). */
    uv_stop(handle->loop);
    timer->fn(timer->owner);
}

mb_timer *mb_timer_new(mb_loop *loop, mb_timer_fn fn, void *owner)
{
    mb_timer *timer = mb_calloc(1, sizeof *timer);
    timer->fn = fn;
    timer->owner = owner;
    must(uv_timer_init(&loop->uv, &timer->uv), "timer");
    timer->uv.data = timer;
    return timer;
}

void mb_timer_start(mb_timer *timer, uint64_t ms)
{
    uv_update_time(timer->uv.loop);
    must(uv_timer_start(&timer->uv, on_timer, ms, 0), "timer");
}

void mb_timer_stop(mb_timer *timer)
{
    uv_timer_stop(&timer->uv);
}

void mb_timer_close(mb_timer **timer)
{
    if (!*timer)
        return;
    uv_timer_stop(&(*timer)->uv);
    uv_close((uv_handle_t *)&(*timer)->uv, free_handle);
    *timer = NULL;
}

/* Blocking work --------------------------------------------------------------------------------- */

static void work_run(uv_work_t *req)
{
    mb_work *work = req->data;
    work->work(work->arg);
}

static void work_done(uv_work_t *req, int status)
{
    (void)status; /* never cancelled */
    mb_work *work = req->data;
    work->done(work->arg);
    free(work);
}

void mb_work_run(mb_loop *loop, void (*work)(void *arg), void (*done)(void *arg), void *arg)
{
    mb_work *item = mb_calloc(1, sizeof *item);
    item->work = work;
    item->done = done;
    item->arg = arg;
    item->uv.data = item;
    must(uv_queue_work(&loop->uv, &item->uv, work_run, work_done), "worker thread");
}

/* Signals --------------------------------------------------------------------------------------- */

static const int signums[] = {SIGINT, SIGTERM};
static struct sigaction of_libuv[2];
static volatile sig_atomic_t signalled;

/* libuv's handler writes to a pipe, which only a turn of the loop reads. */
static void note_signal(int signum)
{
    signalled = 1;
    of_libuv[signum == signums[1]].sa_handler(signum);
}

static void on_signal(uv_signal_t *handle, int signum)
{
    mb_loop *loop = handle->data;
    signalled = 0;
    loop->signal_fn(loop->signal_owner, signum);
}

void mb_loop_on_signal(mb_loop *loop, mb_signal_fn fn, void *owner)
{
    loop->signal_fn = fn;
    loop->signal_owner = owner;
    for (int i = 0; i < 2 && !loop->watching_signals; i++) {
        must(uv_signal_init(&loop->uv, &loop->signals[i]), "signal");
        loop->signals[i].data = loop;
        must(uv_signal_start(&loop->signals[i], on_signal, signums[i]), "signal");
        uv_unref((uv_handle_t *)&loop->signals[i]);
        sigaction(signums[i], NULL, &of_libuv[i]);
        struct sigaction ours = of_libuv[i];
        ours.sa_handler = note_signal;
        sigaction(signums[i], &ours, NULL);
    }
    loop->watching_signals = true;
}

bool mb_loop_signalled(void)
{
    return signalled != 0;
}
