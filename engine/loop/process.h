/*
 * process.h - child processes: start one, wait for it, read what it said.
 *
 * A process embeds an mb_wait that is finished when the child has exited and its captured output has
 * been read to the end. Callbacks run in the loop's turn and only record; the owner reads the outcome
 * afterwards. Who spawned a process closes it with mb_process_close().
 */
#ifndef MB_PROCESS_H
#define MB_PROCESS_H

#include "engine/base/base.h"
#include "engine/loop/task.h"

/* How much of each captured stream is kept: its last part. */
#define MB_PROCESS_TAIL ((size_t)1024 * 1024)
/* A cancelled child gets SIGTERM and, this many milliseconds later, SIGKILL. */
#define MB_PROCESS_GRACE_MS 5000
/* How long after its exit a child's output may be held open by children of its own. */
#define MB_PROCESS_DRAIN_MS 1000

typedef struct mb_process mb_process;

typedef enum mb_output {
    MB_OUTPUT_NULL,    /* /dev/null */
    MB_OUTPUT_INHERIT, /* ours */
    MB_OUTPUT_CAPTURE  /* read into a buffer, the last MB_PROCESS_TAIL bytes are kept */
} mb_output;

/* What to start. Everything pointed to is only read during mb_process_spawn(). */
typedef struct mb_process_spec {
    const char *file;  /* a path, or a name that is looked up in PATH */
    char *const *argv; /* NULL-terminated, argv[0] included */
    char *const *env;  /* whole environment, NULL-terminated "NAME=value"; NULL: ours */
    const char *cwd;   /* NULL: ours */
    bool set_ids;      /* run under uid and gid, without supplementary groups (needs root) */
    unsigned uid;
    unsigned gid;
    const char *input; /* text for stdin, NULL: none */
    size_t input_len;
    bool stdin_pipe; /* stdin is a pipe that stays open until mb_process_close_stdin() */
    mb_output out;
    mb_output err;
    bool detached;       /* its own session: a Ctrl-C at the terminal does not reach it */
    bool kill_on_cancel; /* cancelling the waiting task kills the child; else the task just wakes */
} mb_process_spec;

/* Starts a child. Returns 0 and sets *out, or an errno value (ENOENT: no such file, or no cwd). */
MB_NODISCARD int mb_process_spawn(mb_loop *loop, const mb_process_spec *spec, mb_process **out);
/* Forgets the child: its pipes are closed, it is not killed. Wakes who waits. Safe to call twice. */
void mb_process_close(mb_process **process);

/* What to await until the child has ended. With ms >= 0 it also wakes after that time. One task at a
 * time may wait (mb_process_waited_for() tells); after waking, look at mb_process_ended(). */
mb_wait *mb_process_wait(mb_process *process, int64_t ms);
bool mb_process_waited_for(const mb_process *process);

int mb_process_pid(const mb_process *process);
/* Sends a signal; 0 or an errno value, ESRCH when the child has exited. */
int mb_process_kill(mb_process *process, int signum);
/* Closes the stdin pipe; the child reads end of file. Nothing happens if it is closed already. */
void mb_process_close_stdin(mb_process *process);

/* The outcome; meaningful once mb_process_ended(). `status` of a child that a signal ended is 0. */
bool mb_process_ended(const mb_process *process);
int mb_process_status(const mb_process *process);
int mb_process_signal(const mb_process *process);
/* Captured output (of stdout when `err` is false), owned by the process; "" when there is none. */
const char *mb_process_output(const mb_process *process, bool err, size_t *len);

#endif
