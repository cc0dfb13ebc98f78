/*
 * process.c - child processes for Lua (module moonbird.native.process), and file locks (lock.c).
 *
 * A spec is a table:
 *   file      path, or a name looked up in PATH
 *   args      array of strings (without the program's name)
 *   env       additions to our environment: name = value, or name = false to take one away
 *   cwd       folder to start in
 *   uid, gid  user and group to run under (as root)
 *   stdin     nil: nothing to read; "pipe": a pipe held open until close_stdin() or close(); any
 *             other string: that text
 *   stdout, stderr  "capture" (the last 1 MiB is kept; default), "inherit" or "null"
 *   detached  true: a session of its own, so that a Ctrl-C does not reach it
 */
#include <errno.h>
#include <lauxlib.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "bindings/error.h"
#include "bindings/lock.h"
#include "bindings/natives.h"
#include "bindings/task.h"
#include "engine/base/file.h"
#include "engine/loop/process.h"

#define HANDLE "moonbird.process"

typedef struct process_box {
    mb_process *process; /* NULL when closed */
    bool kill_on_gc;     /* of process.run: nobody is left who could end it */
} process_box;

static const struct {
    const char *name;
    int number;
} signals[] = {{"TERM", SIGTERM}, {"INT", SIGINT},   {"KILL", SIGKILL}, {"QUIT", SIGQUIT},
               {"HUP", SIGHUP},   {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"STOP", SIGSTOP},
               {"CONT", SIGCONT}, {"ABRT", SIGABRT}, {"SEGV", SIGSEGV}, {"PIPE", SIGPIPE},
               {NULL, 0}};

static int check_signal(lua_State *L, int arg)
{
    if (lua_isnoneornil(L, arg))
        return SIGTERM;
    if (lua_isinteger(L, arg))
        return (int)lua_tointeger(L, arg);
    const char *name = luaL_checkstring(L, arg);
    for (int i = 0; signals[i].name; i++)
        if (!strcmp(signals[i].name, name))
            return signals[i].number;
    return luaL_argerror(L, arg, "unknown signal name");
}

static void push_signal(lua_State *L, int number)
{
    for (int i = 0; signals[i].name; i++) {
        if (signals[i].number == number) {
            lua_pushfstring(L, "SIG%s", signals[i].name);
            return;
        }
    }
    lua_pushfstring(L, "signal %d", number);
}

/* Spec -------------------------------------------------------------------------------------------- */

enum { SPEC = 1, ANCHOR = 2 }; /* stack places: the table, and what keeps its strings alive */

/* The string at `key` of the spec, or NULL; kept alive by the spec itself. */
static const char *spec_string(lua_State *L, const char *key, size_t *len)
{
    lua_getfield(L, SPEC, key);
    if (!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TSTRING)
        luaL_error(L, "process: \"%s\" must be a string", key);
    const char *text = lua_tolstring(L, -1, len);
    lua_pop(L, 1);
    return text;
}

static bool spec_bool(lua_State *L, const char *key)
{
    lua_getfield(L, SPEC, key);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

static bool spec_id(lua_State *L, const char *key, unsigned *out)
{
    bool given = lua_getfield(L, SPEC, key) != LUA_TNIL;
    if (given) {
        if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 0)
            luaL_error(L, "process: \"%s\" must be a number", key);
        *out = (unsigned)lua_tointeger(L, -1);
    }
    lua_pop(L, 1);
    return given;
}

static mb_output spec_output(lua_State *L, const char *key)
{
    const char *mode = spec_string(L, key, NULL);
    if (!mode || !strcmp(mode, "capture"))
        return MB_OUTPUT_CAPTURE;
    if (!strcmp(mode, "inherit"))
        return MB_OUTPUT_INHERIT;
    if (strcmp(mode, "null") != 0)
        luaL_error(L, "process: \"%s\" must be \"capture\", \"inherit\" or \"null\"", key);
    return MB_OUTPUT_NULL;
}

/* A NULL-terminated array of `count` strings in Lua's memory, anchored; filled by the caller. */
static char **new_strings(lua_State *L, lua_Integer count)
{
    char **list = lua_newuserdatauv(L, ((size_t)count + 1) * sizeof *list, 0);
    memset(list, 0, ((size_t)count + 1) * sizeof *list);
    lua_rawseti(L, ANCHOR, (lua_Integer)lua_rawlen(L, ANCHOR) + 1);
    return list;
}

/* The string on top of the stack, anchored and popped. */
static char *keep(lua_State *L)
{
    char *text = (char *)lua_tostring(L, -1);
    lua_rawseti(L, ANCHOR, (lua_Integer)lua_rawlen(L, ANCHOR) + 1);
    return text;
}

static char **spec_args(lua_State *L, const char *file)
{
    lua_Integer count = 0;
    if (lua_getfield(L, SPEC, "args") != LUA_TNIL) {
        if (lua_type(L, -1) != LUA_TTABLE)
            luaL_error(L, "process: \"args\" must be an array of strings");
        count = luaL_len(L, -1);
    }
    char **argv = new_strings(L, count + 1);
    argv[0] = (char *)file;
    for (lua_Integer i = 1; i <= count; i++) {
        if (lua_geti(L, -1, i) != LUA_TSTRING && !lua_isinteger(L, -1))
            luaL_error(L, "process: argument %d must be a string", (int)i);
        argv[i] = keep(L);
    }
    lua_pop(L, 1);
    return argv;
}

/* Our environment with the additions, or NULL when there are none. */
static char **spec_env(lua_State *L)
{
    if (lua_getfield(L, SPEC, "env") == LUA_TNIL) {
        lua_pop(L, 1);
        return NULL;
    }
    if (lua_type(L, -1) != LUA_TTABLE)
        luaL_error(L, "process: \"env\" must be a table");
    int additions = lua_gettop(L);
    lua_Integer count = 0;
    for (char **at = environ; at && *at; at++)
        count++;
    for (lua_pushnil(L); lua_next(L, additions); lua_pop(L, 1))
        count++;
    char **list = new_strings(L, count);
    lua_Integer n = 0;
    for (char **at = environ; at && *at; at++) {
        lua_pushlstring(L, *at, strcspn(*at, "="));
        bool replaced = lua_gettable(L, additions) != LUA_TNIL;
        lua_pop(L, 1);
        if (replaced)
            continue;
        lua_pushstring(L, *at); /* a copy: setenv() may free the original while the call lasts */
        list[n++] = keep(L);
    }
    for (lua_pushnil(L); lua_next(L, additions); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            luaL_error(L, "process: names in \"env\" must be strings");
        if (lua_type(L, -1) == LUA_TBOOLEAN && !lua_toboolean(L, -1))
            continue;
        const char *name = lua_tostring(L, -2);
        const char *value = luaL_tolstring(L, -1, NULL);
        lua_pushfstring(L, "%s=%s", name, value);
        list[n++] = keep(L);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return list;
}

/* Reads the table at SPEC; raises when it makes no sense. */
static void read_spec(lua_State *L, mb_process_spec *spec)
{
    luaL_checktype(L, SPEC, LUA_TTABLE);
    lua_settop(L, SPEC);
    lua_newtable(L);
    *spec = (mb_process_spec){.file = spec_string(L, "file", NULL)};
    if (!spec->file)
        luaL_error(L, "process: \"file\" is missing");
    spec->argv = spec_args(L, spec->file);
    spec->env = spec_env(L);
    spec->cwd = spec_string(L, "cwd", NULL);
    bool uid = spec_id(L, "uid", &spec->uid);
    bool gid = spec_id(L, "gid", &spec->gid);
    if (uid != gid)
        luaL_error(L, "process: give both \"uid\" and \"gid\", or neither");
    spec->set_ids = uid;
    const char *input = spec_string(L, "stdin", &spec->input_len);
    if (input && !strcmp(input, "pipe"))
        spec->stdin_pipe = true;
    else
        spec->input = input;
    spec->out = spec_output(L, "stdout");
    spec->err = spec_output(L, "stderr");
    spec->detached = spec_bool(L, "detached");
}

/* Life -------------------------------------------------------------------------------------------- */

static int push_errno_error(lua_State *L, int code, const mb_process_spec *spec)
{
    char text[128];
    mb_errno_text(code, text, sizeof text);
    mb_error err = MB_ERROR_INIT;
    mb_error_set(&err, MB_IO, "cannot run \"%s\": %s", spec->file, text);
    if (code == ENOENT && spec->cwd)
        mb_error_hint(&err, "the program is missing, or the folder \"%s\" is", spec->cwd);
    mbl_fail(L, &err);
    lua_pushstring(L, mb_errno_name(code));
    lua_setfield(L, -2, "errno");
    return 2;
}

/* Starts what the table at SPEC says and pushes the box; or pushes nil, err and returns NULL. */
static process_box *start(lua_State *L, bool kill_on_cancel)
{
    mb_process_spec spec;
    read_spec(L, &spec);
    spec.kill_on_cancel = kill_on_cancel;
    process_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = (process_box){NULL, kill_on_cancel};
    luaL_setmetatable(L, HANDLE);
    int code = mb_process_spawn(mb_sched_loop(mbl_sched()), &spec, &box->process);
    if (code) {
        push_errno_error(L, code, &spec);
        return NULL;
    }
    return box;
}

static process_box *check(lua_State *L)
{
    process_box *box = luaL_checkudata(L, 1, HANDLE);
    luaL_argcheck(L, box->process, 1, "process handle is closed");
    return box;
}

static void push_outcome(lua_State *L, const mb_process *process)
{
    size_t len;
    lua_createtable(L, 0, 4);
    int signum = mb_process_signal(process);
    if (signum) {
        push_signal(L, signum);
        lua_setfield(L, -2, "signal");
    } else {
        lua_pushinteger(L, mb_process_status(process));
        lua_setfield(L, -2, "status");
    }
    const char *text = mb_process_output(process, false, &len);
    lua_pushlstring(L, text, len);
    lua_setfield(L, -2, "stdout");
    text = mb_process_output(process, true, &len);
    lua_pushlstring(L, text, len);
    lua_setfield(L, -2, "stderr");
}

/* Waiting ----------------------------------------------------------------------------------------- */

static int run_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    process_box *box = (process_box *)ctx;
    if (!mb_process_ended(box->process))
        return mbl_await(L, mb_process_wait(box->process, -1), run_k, ctx);
    if (mbl_take_cancel(L)) {
        mb_process_close(&box->process);
        return 2;
    }
    push_outcome(L, box->process);
    mb_process_close(&box->process);
    return 1;
}

/* run(spec) -> {status, signal, stdout, stderr}, or nil, err when it could not be started or the task
 * was cancelled (the child is dead then). `status` is nil when a signal ended it. */
static int l_process_run(lua_State *L)
{
    process_box *box = start(L, true);
    if (!box)
        return 2;
    return mbl_await(L, mb_process_wait(box->process, -1), run_k, (lua_KContext)box);
}

/* spawn(spec) -> handle, or nil, err */
static int l_process_spawn(lua_State *L)
{
    return start(L, false) ? 1 : 2;
}

enum { WAIT_MS = 2 };

static int wait_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    process_box *box = (process_box *)ctx;
    if (!box->process) {
        mb_error err = MB_ERROR_INIT;
        mb_error_set(&err, MB_IO, "the process handle was closed while waiting");
        return mbl_fail(L, &err);
    }
    if (mb_process_ended(box->process)) {
        push_outcome(L, box->process);
        return 1;
    }
    if (mbl_take_cancel(L))
        return 2;
    if (lua_isnil(L, WAIT_MS))
        return mbl_await(L, mb_process_wait(box->process, -1), wait_k, ctx);
    lua_pushboolean(L, false);
    return 1;
}

/* handle:wait([ms]) -> the outcome as of run(), false when it still runs after `ms` milliseconds, or
 * nil, err when the task was cancelled (the child goes on) */
static int l_process_wait(lua_State *L)
{
    process_box *box = check(L);
    lua_settop(L, WAIT_MS);
    lua_Integer ms = luaL_optinteger(L, WAIT_MS, -1);
    luaL_argcheck(L, lua_isnil(L, WAIT_MS) || ms >= 0, WAIT_MS, "must not be negative");
    if (mb_process_waited_for(box->process))
        return luaL_error(L, "another task waits for this process already");
    return mbl_await(L, mb_process_wait(box->process, ms), wait_k, (lua_KContext)box);
}

/* Handle ------------------------------------------------------------------------------------------ */

static int l_process_pid(lua_State *L)
{
    lua_pushinteger(L, mb_process_pid(check(L)->process));
    return 1;
}

/* handle:kill([signal]) -> true, or nil, message, errno name. A name ("TERM", the default) or number. */
static int l_process_kill(lua_State *L)
{
    process_box *box = check(L);
    int code = mb_process_kill(box->process, check_signal(L, 2));
    if (code == 0) {
        lua_pushboolean(L, true);
        return 1;
    }
    char text[128];
    luaL_pushfail(L);
    lua_pushfstring(L, "cannot signal process %d: %s", mb_process_pid(box->process),
                    mb_errno_text(code, text, sizeof text));
    lua_pushstring(L, mb_errno_name(code));
    return 3;
}

static int l_process_close_stdin(lua_State *L)
{
    mb_process_close_stdin(check(L)->process);
    return 0;
}

/* handle:close(), __gc and __close: forgets the child. Its stdin pipe closes; it is not killed. */
static int l_process_close(lua_State *L)
{
    process_box *box = luaL_checkudata(L, 1, HANDLE);
    if (box->process && box->kill_on_gc)
        (void)mb_process_kill(box->process, SIGTERM); /* ESRCH: it has just ended */
    mb_process_close(&box->process);
    return 0;
}

/* signal(pid, signal) -> true, or nil, message, errno name. Signal 0 only asks whether pid is there. */
static int l_process_signal(lua_State *L)
{
    lua_Integer pid = luaL_checkinteger(L, 1);
    luaL_argcheck(L, pid > 1 && pid <= INT32_MAX, 1, "not a process number");
    if (kill((pid_t)pid, check_signal(L, 2)) == 0) {
        lua_pushboolean(L, true);
        return 1;
    }
    int code = errno;
    char text[128];
    luaL_pushfail(L);
    lua_pushfstring(L, "cannot signal process %d: %s", (int)pid,
                    mb_errno_text(code, text, sizeof text));
    lua_pushstring(L, mb_errno_name(code));
    return 3;
}

int luaopen_moonbird_native_process(lua_State *L)
{
    static const luaL_Reg methods[] = {{"pid", l_process_pid},
                                       {"kill", l_process_kill},
                                       {"wait", l_process_wait},
                                       {"close_stdin", l_process_close_stdin},
                                       {"close", l_process_close},
                                       {NULL, NULL}};
    static const luaL_Reg functions[] = {{"run", l_process_run},
                                         {"spawn", l_process_spawn},
                                         {"signal", l_process_signal},
                                         {"lock", mbl_lock_open},
                                         {NULL, NULL}};
    mbl_lock_register(L);
    if (luaL_newmetatable(L, HANDLE)) {
        lua_newtable(L);
        luaL_setfuncs(L, methods, 0);
        lua_setfield(L, -2, "__index");
        lua_pushcfunction(L, l_process_close);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, l_process_close);
        lua_setfield(L, -2, "__close");
        lua_pushboolean(L, false);
        lua_setfield(L, -2, "__metatable");
    }
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
