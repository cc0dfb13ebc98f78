/*
 * watchdog.c - ends the process when code does not come back: a thread that wakes each second and
 * looks at the CPU time of the main thread. First it asks (mbl_watchdog_expired(), which the
 * sandbox's hook reads); a burst that does not end within GRACE seconds more is inside a C function
 * that no hook can reach, and the process exits, which is safe at any point.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "bindings/sandbox.h"

#define GRACE 2
#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* One per process, like the main thread that it watches: hence file scope. The main thread only
 * writes memory; the watching thread wakes each second and compares. An odd `turn` means code is
 * running. */
static struct {
    atomic_uint turn;
    atomic_uint seconds;
    atomic_uint expired; /* the turn whose time is up */
    atomic_char what[192];
    /* only the main thread */
    bool started;
    unsigned depth;
    struct {
        const char *what;
        unsigned seconds;
    } outer[8];
    clockid_t clock; /* CPU time of the main thread; written before the watcher starts */
} watchdog;

static double cpu_seconds(void)
{
    struct timespec t = {0, 0};
    clock_gettime(watchdog.clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void end_process(unsigned turn)
{
    char what[LENGTH(watchdog.what)], text[400];
    for (size_t i = 0; i < sizeof what; i++)
        what[i] = atomic_load_explicit(&watchdog.what[i], memory_order_relaxed);
    what[sizeof what - 1] = '\0';
    unsigned seconds = atomic_load(&watchdog.seconds);
    if (atomic_load(&watchdog.turn) != turn)
        return; /* it came back this very moment */
    int n =
        snprintf(text, sizeof text,
                 "moonbird: %s used %u s of CPU in one call: killed; nothing of it was committed\n",
                 what, seconds);
    if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
        _exit(70); /* nobody to tell */
    _exit(70);
}

static void *watch(void *arg)
{
    (void)arg;
    unsigned seen = 0;
    double since = 0;
    for (;;) {
        struct timespec second = {1, 0};
        nanosleep(&second, NULL);
        unsigned turn = atomic_load(&watchdog.turn);
        unsigned seconds = atomic_load(&watchdog.seconds);
        if (turn != seen) {
            seen = turn;
            since = cpu_seconds();
            continue;
        }
        if (turn % 2 == 0 || seconds == 0)
            continue;
        double used = cpu_seconds() - since;
        if (used >= seconds)
            atomic_store(&watchdog.expired, turn);
        if (used >= seconds + GRACE)
            end_process(turn);
    }
    return NULL;
}

static void start_watching(void)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, before;
    watchdog.started = true;
    if (pthread_getcpuclockid(pthread_self(), &watchdog.clock) != 0)
        return; /* no CPU clock: no watchdog; the other limits hold */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals belong to the loop's thread */
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 128 * 1024);
    pthread_create(&thread, &attr, watch, NULL);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void set_watched(const char *what, unsigned seconds)
{
    size_t i = 0;
    for (; what[i] && i + 1 < LENGTH(watchdog.what); i++)
        atomic_store_explicit(&watchdog.what[i], what[i], memory_order_relaxed);
    atomic_store_explicit(&watchdog.what[i], '\0', memory_order_relaxed);
    atomic_store_explicit(&watchdog.seconds, seconds, memory_order_relaxed);
}

void mbl_watchdog_enter(const char *what, unsigned seconds)
{
    if (!what)
        what = "a task";
    if (seconds > 0 && !watchdog.started)
        start_watching();
    unsigned depth = watchdog.depth++;
    if (depth < LENGTH(watchdog.outer)) {
        watchdog.outer[depth].what = what;
        watchdog.outer[depth].seconds = seconds;
    }
    set_watched(what, seconds);
    atomic_fetch_add(&watchdog.turn, depth == 0 ? 1 : 2);
}

void mbl_watchdog_leave(void)
{
    unsigned depth = --watchdog.depth;
    if (depth > 0 && depth <= LENGTH(watchdog.outer))
        set_watched(watchdog.outer[depth - 1].what, watchdog.outer[depth - 1].seconds);
    atomic_fetch_add(&watchdog.turn, depth == 0 ? 1 : 2);
}

bool mbl_watchdog_expired(void)
{
    unsigned turn = atomic_load_explicit(&watchdog.turn, memory_order_relaxed);
    return atomic_load_explicit(&watchdog.expired, memory_order_relaxed) == turn && turn % 2 == 1;
}
