/*
 * process.c - child processes over uv_spawn().
 *
 * libuv closes handles asynchronously, so each pipe is a block of its own that its close callback
 * frees; the mb_process itself is freed when its uv handle is closed. A process that is closed while
 * its child still runs stays behind, unreferenced, only to reap the child.
 */
#include "engine/loop/process.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "engine/base/buf.h"

enum { STDIN, STDOUT, STDERR, STREAMS };

typedef struct stream {
    uv_pipe_t uv; /* first: mb_loop_free() frees what a handle's data points to */
    uv_write_t write;
    mb_process *process; /* NULL once the process has let go of it */
    char *input;         /* stdin: the text being written */
    int which;
} stream;

struct mb_process {
    uv_process_t uv; /* first, as above */
    mb_wait wait;
    stream *streams[STREAMS]; /* NULL: not piped, or closed */
    mb_buf output[STREAMS];
    mb_timer *wake;  /* ends a wait with a time limit */
    mb_timer *grace; /* from SIGTERM to SIGKILL */
    mb_timer *drain; /* from exit to the end of reading */
    bool exited;
    bool ended;
    bool forgotten;
    int64_t status;
    int signum;
};

/* Pipes ------------------------------------------------------------------------------------------- */

static void free_stream(uv_handle_t *handle)
{
    stream *s = handle->data;
    free(s->input);
    free(s);
}

static void close_stream(mb_process *process, int which)
{
    stream *s = process->streams[which];
    if (!s)
        return;
    process->streams[which] = NULL;
    s->process = NULL;
    uv_close((uv_handle_t *)&s->uv, free_stream);
}

static stream *open_stream(mb_loop *loop, mb_process *process, int which)
{
    stream *s = mb_calloc(1, sizeof *s);
    /* Fails only for an unknown flag. */
    (void)uv_pipe_init(mb_loop_uv(loop), &s->uv, 0);
    s->uv.data = s;
    s->process = process;
    s->which = which;
    process->streams[which] = s;
    return s;
}

static void settle(mb_process *process)
{
    if (process->ended || !process->exited || process->streams[STDOUT] || process->streams[STDERR])
        return;
    process->ended = true;
    mb_timer_stop(process->drain);
    mb_timer_stop(process->grace);
    mb_timer_stop(process->wake);
    close_stream(process, STDIN);
    mb_wait_finish(&process->wait);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    enum { CHUNK = 16 * 1024 };
    stream *s = handle->data;
    char *room = s->process ? mb_buf_reserve(&s->process->output[s->which], CHUNK) : NULL;
    *out = uv_buf_init(room, room ? CHUNK : 0);
}

/* Keeps the last MB_PROCESS_TAIL bytes, moving them only once per that many. */
static void trim(mb_buf *buf)
{
    if (buf->len < 2 * MB_PROCESS_TAIL)
        return;
    memmove(buf->data, buf->data + buf->len - MB_PROCESS_TAIL, MB_PROCESS_TAIL);
    buf->len = MB_PROCESS_TAIL;
    buf->data[buf->len] = '\0';
}

static void on_read(uv_stream_t *handle, ssize_t count, const uv_buf_t *chunk)
{
    (void)chunk;
    stream *s = handle->data;
    mb_process *process = s->process;
    if (!process)
        return;
    if (count < 0) { /* end of file, or as good as */
        close_stream(process, s->which);
        settle(process);
        return;
    }
    mb_buf *buf = &process->output[s->which];
    buf->len += (size_t)count;
    buf->data[buf->len] = '\0';
    trim(buf);
}

static void on_written(uv_write_t *write, int status)
{
    (void)status; /* a child that does not read its input to the end may do so */
    stream *s = write->data;
    if (s->process)
        close_stream(s->process, s->which);
}

static void send_input(stream *s, const char *input, size_t len)
{
    s->input = mb_strndup(input, len);
    s->write.data = s;
    uv_buf_t chunk = uv_buf_init(s->input, (unsigned)len);
    if (uv_write(&s->write, (uv_stream_t *)&s->uv, &chunk, 1, on_written) < 0)
        close_stream(s->process, s->which);
}

/* Life -------------------------------------------------------------------------------------------- */

static void free_process(uv_handle_t *handle)
{
    mb_process *process = handle->data;
    for (int i = 0; i < STREAMS; i++)
        mb_buf_free(&process->output[i]);
    free(process);
}

static void on_child_exit(uv_process_t *handle, int64_t status, int signum)
{
    mb_process *process = handle->data;
    process->exited = true;
    process->status = status;
    process->signum = signum;
    if (process->forgotten) {
        uv_close((uv_handle_t *)&process->uv, free_process);
        return;
    }
    if (process->streams[STDOUT] || process->streams[STDERR])
        mb_timer_start(process->drain, MB_PROCESS_DRAIN_MS);
    settle(process);
}

static void on_wake(void *owner)
{
    mb_process *process = owner;
    mb_wait_finish(&process->wait);
}

static void on_grace_over(void *owner)
{
    mb_process *process = owner;
    /* The child may have exited this very moment; then there is nobody left to kill. */
    (void)mb_process_kill(process, SIGKILL);
}

static void on_drain_over(void *owner)
{
    mb_process *process = owner;
    close_stream(process, STDOUT);
    close_stream(process, STDERR);
    settle(process);
}

static void on_cancel(mb_wait *wait)
{
    mb_process *process = (mb_process *)(void *)((char *)wait - offsetof(mb_process, wait));
    if (mb_process_kill(process, SIGTERM) == 0)
        mb_timer_start(process->grace, MB_PROCESS_GRACE_MS);
}

static uv_stdio_container_t output_container(mb_loop *loop, mb_process *process, int which,
                                             mb_output mode)
{
    uv_stdio_container_t c = {.flags = UV_IGNORE};
    if (mode == MB_OUTPUT_INHERIT) {
        c.flags = UV_INHERIT_FD;
        c.data.fd = which;
    } else if (mode == MB_OUTPUT_CAPTURE) {
        c.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
        c.data.stream = (uv_stream_t *)&open_stream(loop, process, which)->uv;
    }
    return c;
}

int mb_process_spawn(mb_loop *loop, const mb_process_spec *spec, mb_process **out)
{
    mb_process *process = mb_calloc(1, sizeof *process);
    process->uv.data = process;
    process->wait.cancel = spec->kill_on_cancel ? on_cancel : NULL;
    process->wake = mb_timer_new(loop, on_wake, process);
    process->grace = mb_timer_new(loop, on_grace_over, process);
    process->drain = mb_timer_new(loop, on_drain_over, process);
    uv_stdio_container_t stdio[STREAMS] = {{.flags = UV_IGNORE}};
    if (spec->input || spec->stdin_pipe) {
        stdio[STDIN].flags = UV_CREATE_PIPE | UV_READABLE_PIPE;
        stdio[STDIN].data.stream = (uv_stream_t *)&open_stream(loop, process, STDIN)->uv;
    }
    stdio[STDOUT] = output_container(loop, process, STDOUT, spec->out);
    stdio[STDERR] = output_container(loop, process, STDERR, spec->err);
    uv_process_options_t options = {.exit_cb = on_child_exit,
                                    .file = spec->file,
                                    .args = (char **)spec->argv,
                                    .env = (char **)spec->env,
                                    .cwd = spec->cwd,
                                    .stdio_count = STREAMS,
                                    .stdio = stdio};
    if (spec->detached)
        options.flags |= UV_PROCESS_DETACHED;
    if (spec->set_ids) {
        options.flags |= UV_PROCESS_SETUID | UV_PROCESS_SETGID;
        options.uid = spec->uid;
        options.gid = spec->gid;
    }
    int rc = uv_spawn(mb_loop_uv(loop), &process->uv, &options);
    if (rc < 0) {
        process->exited = true;
        mb_process_close(&process);
        return -rc;
    }
    for (int i = STDOUT; i <= STDERR; i++)
        if (process->streams[i])
            (void)uv_read_start((uv_stream_t *)&process->streams[i]->uv, on_alloc, on_read);
    if (spec->input)
        send_input(process->streams[STDIN], spec->input, spec->input_len);
    *out = process;
    return 0;
}

void mb_process_close(mb_process **slot)
{
    mb_process *process = *slot;
    if (!process)
        return;
    *slot = NULL;
    for (int i = 0; i < STREAMS; i++)
        close_stream(process, i);
    mb_timer_close(&process->wake);
    mb_timer_close(&process->grace);
    mb_timer_close(&process->drain);
    mb_wait_finish(&process->wait);
    if (process->exited) {
        uv_close((uv_handle_t *)&process->uv, free_process);
        return;
    }
    /* Nothing but the handle may be left to free: mb_loop_free() does not know more than that. */
    for (int i = 0; i < STREAMS; i++)
        mb_buf_free(&process->output[i]);
    process->forgotten = true;
    uv_unref((uv_handle_t *)&process->uv);
}

mb_wait *mb_process_wait(mb_process *process, int64_t ms)
{
    mb_timer_stop(process->wake);
    process->wait.done = process->ended;
    if (!process->ended && ms >= 0)
        mb_timer_start(process->wake, (uint64_t)ms);
    return &process->wait;
}

bool mb_process_waited_for(const mb_process *process)
{
    return process->wait.task != NULL;
}

int mb_process_pid(const mb_process *process)
{
    return uv_process_get_pid(&process->uv);
}

int mb_process_kill(mb_process *process, int signum)
{
    return process->exited ? ESRCH : -uv_process_kill(&process->uv, signum);
}

void mb_process_close_stdin(mb_process *process)
{
    close_stream(process, STDIN);
}

bool mb_process_ended(const mb_process *process)
{
    return process->ended;
}

int mb_process_status(const mb_process *process)
{
    return (int)process->status;
}

int mb_process_signal(const mb_process *process)
{
    return process->signum;
}

const char *mb_process_output(const mb_process *process, bool err, size_t *len)
{
    const mb_buf *buf = &process->output[err ? STDERR : STDOUT];
    size_t skip = buf->len > MB_PROCESS_TAIL ? buf->len - MB_PROCESS_TAIL : 0;
    *len = buf->len - skip;
    return buf->data ? buf->data + skip : "";
}
