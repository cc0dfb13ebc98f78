/*
 * conn.c - connections for Lua (module moonbird.native.conn). Each method that talks to the server
 * starts the operation, yields to the scheduler and converts the answer in its continuation.
 * Expected failures return nil and an error; misuse raises.
 */
#include <lauxlib.h>
#include <stdlib.h>
#include <string.h>

#include "bindings/error.h"
#include "bindings/natives.h"
#include "bindings/result.h"
#include "bindings/sandbox.h"
#include "bindings/task.h"
#include "engine/base/number.h"
#include "engine/pg/conn.h"

#define CONN "moonbird.conn"
#define MAX_PARAMS 65535

typedef struct conn_box {
    mb_conn *conn; /* NULL once freed */
} conn_box;

static mb_conn *check(lua_State *L)
{
    conn_box *box = luaL_checkudata(L, 1, CONN);
    luaL_argcheck(L, box->conn, 1, "the connection is freed");
    return box->conn;
}

/* As check(), for methods that wait: refused before anything is sent where waiting is impossible. */
static mb_conn *check_wait(lua_State *L)
{
    if (!mb_sched_current(mbl_sched()))
        luaL_error(L, "this call waits, and can only be made inside a task");
    if (!mbl_sandbox_can_wait(L))
        luaL_error(L, "this call waits, and can't be made inside a metamethod or a callback of "
                      "table.sort or string.gsub");
    return check(L);
}

/* new() -> a closed connection */
static int l_conn_new(lua_State *L)
{
    conn_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->conn = NULL;
    luaL_setmetatable(L, CONN);
    box->conn = mb_conn_new(mbl_sched());
    return 1;
}

/* Pushes nil and the operation's error (with .index), or the reason the task was cancelled for. */
static int fail_op(lua_State *L, mb_conn *conn)
{
    mb_error err = MB_ERROR_INIT;
    int index = mb_conn_failed_index(conn);
    mb_conn_finish(conn, &err);
    if (err.code != MB_CONNECTION_LOST && mbl_take_cancel(L)) {
        mb_error_clear(&err);
        return 2;
    }
    mbl_fail(L, &err);
    if (index >= 0) {
        lua_pushinteger(L, index + 1);
        lua_setfield(L, -2, "index");
    }
    return 2;
}

/* Connecting -------------------------------------------------------------------------------------- */

static int connect_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    mb_conn *conn = (mb_conn *)ctx;
    if (mb_conn_state(conn) == MB_CONN_CLOSED)
        return fail_op(L, conn);
    lua_pushboolean(L, true);
    return 1;
}

static int ping_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    mb_conn *conn = (mb_conn *)ctx;
    mb_error err = MB_ERROR_INIT;
    if (mb_conn_finish(conn, &err) == MB_OK) {
        lua_pushboolean(L, true);
        return 1;
    }
    if (mbl_take_cancel(L)) {
        mb_error_clear(&err);
        return 2;
    }
    return mbl_fail(L, &err);
}

typedef void (*start_fn)(mb_conn *conn, const char *const *keywords, const char *const *values);

/* Reads { keyword = value, ... } at index 2, starts and waits. */
static int start(lua_State *L, start_fn fn, lua_KFunction k)
{
    enum { MAX = 64 };
    mb_conn *conn = check_wait(L);
    const char *keywords[MAX + 1];
    const char *values[MAX + 1];
    int count = 0;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    lua_newtable(L); /* anchors values that are converted to strings */
    lua_pushnil(L);
    while (lua_next(L, 2)) {
        luaL_argcheck(L, lua_type(L, -2) == LUA_TSTRING && count < MAX, 2, "bad keyword");
        keywords[count] = lua_tostring(L, -2);
        values[count] = luaL_checkstring(L, -1);
        lua_rawseti(L, 3, ++count);
    }
    keywords[count] = values[count] = NULL;
    fn(conn, keywords, values);
    return mbl_await(L, mb_conn_wait(conn), k, (lua_KContext)conn);
}

/* conn:connect{ keyword = value, ... } -> true, or nil, err */
static int l_conn_connect(lua_State *L)
{
    return start(L, mb_conn_connect, connect_k);
}

/* conn:ping{ keyword = value, ... } -> true when a server accepts connections there, or nil, err */
static int l_conn_ping(lua_State *L)
{
    return start(L, mb_conn_ping, ping_k);
}

/* Parameters -------------------------------------------------------------------------------------- */

typedef struct param_list {
    int count;
    const char *values[]; /* anchored beside it */
} param_list;

/* Pushes a userdata (so that a raise can't leak it) with `count` parameters read from the array at
 * `index`, positions `first` and on. Numbers converted to text are anchored in its user value. */
static param_list *push_params(lua_State *L, int index, int first, lua_Integer count)
{
    if (count < 0 || count > MAX_PARAMS)
        luaL_error(L, "a statement takes at most %d parameters", MAX_PARAMS);
    param_list *list =
        lua_newuserdatauv(L, sizeof *list + sizeof *list->values * (size_t)count, 1);
    list->count = (int)count;
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, -3, 1);
    int anchor = lua_gettop(L);
    size_t len;
    for (int i = 0; i < list->count; i++) {
        list->values[i] = NULL;
        switch (lua_rawgeti(L, index, first + i)) {
        case LUA_TNIL:
        case LUA_TLIGHTUSERDATA: /* db.null */
            break;
        case LUA_TBOOLEAN:
            list->values[i] = lua_toboolean(L, -1) ? "t" : "f";
            break;
        case LUA_TNUMBER:
            if (lua_isinteger(L, -1))
                lua_pushfstring(L, "%I", (LUAI_UACINT)lua_tointeger(L, -1));
            else {
                char text[MB_FLOAT_TEXT];
                mb_float_text(text, lua_tonumber(L, -1));
                lua_pushstring(L, text);
            }
            list->values[i] = lua_tostring(L, -1);
            lua_rawseti(L, anchor, i + 1);
            break;
        case LUA_TSTRING:
            list->values[i] = lua_tolstring(L, -1, &len);
            if (memchr(list->values[i], 0, len))
                mbl_raise(L, "parameter $%d: text can't hold a NUL byte; give bytes with "
                             "db:bytea(...)", i + 1);
            break;
        default:
            mbl_raise(L, "parameter $%d is a %s; give a string, number, boolean, db.null or "
                          "db:array{...}", i + 1, luaL_typename(L, -1));
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return list;
}

/* Queries ----------------------------------------------------------------------------------------- */

static int query_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    mb_conn *conn = (mb_conn *)ctx;
    void *slot = mbl_result_new(L);
    mb_result *result = mb_conn_take_result(conn);
    if (result)
        mbl_result_fill(slot, result);
    if (mb_conn_failed_index(conn) >= 0 || mb_conn_state(conn) == MB_CONN_CLOSED)
        return fail_op(L, conn);
    if (!result)
        lua_pushnil(L);
    return 1;
}

/* conn:query(sql [, params [, count]]) -> result (nil for an empty statement), or nil, err. During
 * COPY the result is nil and state() tells. */
static int l_conn_query(lua_State *L)
{
    mb_conn *conn = check_wait(L);
    const char *sql = luaL_checkstring(L, 2);
    lua_settop(L, 4);
    param_list none = {0};
    param_list *params = &none;
    if (!lua_isnil(L, 3)) {
        luaL_checktype(L, 3, LUA_TTABLE);
        params = push_params(L, 3, 1, luaL_optinteger(L, 4, (lua_Integer)lua_rawlen(L, 3)));
    }
    mb_error err = MB_ERROR_INIT;
    if (!mb_conn_query(conn, sql, params->values, params->count, &err))
        return mbl_fail(L, &err);
    return mbl_await(L, mb_conn_wait(conn), query_k, (lua_KContext)conn);
}

/* conn:send(sql) -> true, or nil, err: starts a statement without waiting; receive() takes its answer. */
static int l_conn_send(lua_State *L)
{
    mb_conn *conn = check(L);
    mb_error err = MB_ERROR_INIT;
    if (!mb_conn_query(conn, luaL_checkstring(L, 2), NULL, 0, &err))
        return mbl_fail(L, &err);
    lua_pushboolean(L, true);
    return 1;
}

/* conn:receive() -> as query() */
static int l_conn_receive(lua_State *L)
{
    mb_conn *conn = check_wait(L);
    return mbl_await(L, mb_conn_wait(conn), query_k, (lua_KContext)conn);
}

static int results_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    mb_conn *conn = (mb_conn *)ctx;
    lua_newtable(L);
    for (int i = 1;; i++) {
        void *slot = mbl_result_new(L);
        mb_result *result = mb_conn_take_result(conn);
        if (!result) {
            lua_pop(L, 1);
            break;
        }
        mbl_result_fill(slot, result);
        lua_rawseti(L, -2, i);
    }
    if (mb_conn_failed_index(conn) >= 0 || mb_conn_state(conn) == MB_CONN_CLOSED)
        return fail_op(L, conn);
    return 1;
}

/* conn:simple(sql) -> array of results, or nil, err. Stops early when a COPY begins: see state(). */
static int l_conn_simple(lua_State *L)
{
    mb_conn *conn = check_wait(L);
    mb_error err = MB_ERROR_INIT;
    if (!mb_conn_simple(conn, luaL_checkstring(L, 2), &err))
        return mbl_fail(L, &err);
    return mbl_await(L, mb_conn_wait(conn), results_k, (lua_KContext)conn);
}

/* The same for a caller that only wants to know whether it worked. */
static int worked_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    mb_conn *conn = (mb_conn *)ctx;
    mb_conn_drop_results(conn);
    if (mb_conn_failed_index(conn) >= 0 || mb_conn_state(conn) == MB_CONN_CLOSED)
        return fail_op(L, conn);
    lua_pushboolean(L, true);
    return 1;
}

/* Queues the items of the array at 2 and sends them; false with nil and an error pushed. */
static bool send_batch(lua_State *L, mb_conn *conn)
{
    enum { ITEMS = 2, PARAMS = 3, ITEM = 4 };
    luaL_checktype(L, ITEMS, LUA_TTABLE);
    lua_settop(L, ITEMS);
    int count = (int)lua_rawlen(L, ITEMS);
    lua_createtable(L, count, 0);
    /* First everything that may raise, before anything is queued. */
    for (int i = 1; i <= count; i++) {
        if (lua_rawgeti(L, ITEMS, i) != LUA_TTABLE)
            luaL_argerror(L, 2, "each item is a table");
        if (lua_rawgeti(L, ITEM, 1) != LUA_TSTRING)
            luaL_argerror(L, 2, "each item starts with its SQL");
        if (lua_getfield(L, ITEM, "prepared") != LUA_TNIL)
            luaL_argcheck(L, lua_type(L, -1) == LUA_TSTRING, 2, "prepared is a name");
        lua_pop(L, 1);
        lua_getfield(L, ITEM, "n");
        push_params(L, ITEM, 2, luaL_optinteger(L, -1, (lua_Integer)lua_rawlen(L, ITEM) - 1));
        lua_rawseti(L, PARAMS, i);
        lua_settop(L, PARAMS);
    }
    mb_error err = MB_ERROR_INIT;
    bool sent = mb_conn_batch_begin(conn, &err);
    for (int i = 1; sent && i <= count; i++) {
        lua_rawgeti(L, ITEMS, i);
        lua_rawgeti(L, ITEM, 1);
        lua_rawgeti(L, PARAMS, i);
        const param_list *params = lua_touserdata(L, -1);
        const char *sql = lua_tostring(L, -2);
        lua_getfield(L, ITEM, "prepared");
        const char *name = lua_tostring(L, -1);
        sent = name ? mb_conn_batch_add_prepared(conn, name, sql, params->values, params->count, &err)
                    : mb_conn_batch_add(conn, sql, params->values, params->count, &err);
        lua_settop(L, PARAMS);
    }
    sent = sent && mb_conn_batch_send(conn, &err);
    if (!sent)
        mbl_fail(L, &err);
    return sent;
}

/* conn:batch({ {sql, param, ...; n = count, prepared = name}, ... } [, discard]) -> array of results (true with
 * `discard`), or nil, err (err.index tells which statement failed). One implicit transaction, one round trip.
 * `prepared` names a statement that this connection keeps prepared from its first use on. */
static int l_conn_batch(lua_State *L)
{
    mb_conn *conn = check_wait(L);
    bool discard = lua_toboolean(L, 3);
    if (!send_batch(L, conn))
        return 2;
    return mbl_await(L, mb_conn_wait(conn), discard ? worked_k : results_k, (lua_KContext)conn);
}

/* conn:send_batch(items) -> true, or nil, err: the same without waiting; receive_batch() takes its answer. */
static int l_conn_send_batch(lua_State *L)
{
    if (!send_batch(L, check(L)))
        return 2;
    lua_pushboolean(L, true);
    return 1;
}

/* conn:receive_batch() -> as batch() */
static int l_conn_receive_batch(lua_State *L)
{
    mb_conn *conn = check_wait(L);
    return mbl_await(L, mb_conn_wait(conn), results_k, (lua_KContext)conn);
}

/* conn:forget_prepared(): the server has dropped what was prepared. */
static int l_conn_forget_prepared(lua_State *L)
{
    mb_conn_forget_prepared(check(L));
    return 0;
}

/* COPY -------------------------------------------------------------------------------------------- */

static int done_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    mb_conn *conn = (mb_conn *)ctx;
    if (mb_conn_failed_index(conn) >= 0 || mb_conn_state(conn) == MB_CONN_CLOSED)
        return fail_op(L, conn);
    lua_pushboolean(L, true);
    return 1;
}

/* conn:copy_put(data) -> true, or nil, err */
static int l_conn_copy_put(lua_State *L)
{
    mb_conn *conn = check_wait(L);
    size_t len;
    const char *data = luaL_checklstring(L, 2, &len);
    luaL_argcheck(L, len <= INT32_MAX, 2, "a chunk is at most 2 GB");
    mb_error err = MB_ERROR_INIT;
    if (!mb_conn_copy_put(conn, data, len, &err))
        return mbl_fail(L, &err);
    return mbl_await(L, mb_conn_wait(conn), done_k, (lua_KContext)conn);
}

/* conn:copy_end([reason]) -> result, or nil, err. A reason makes the copy fail on purpose. */
static int l_conn_copy_end(lua_State *L)
{
    mb_conn *conn = check_wait(L);
    mb_error err = MB_ERROR_INIT;
    if (!mb_conn_copy_end(conn, luaL_optstring(L, 2, NULL), &err))
        return mbl_fail(L, &err);
    return mbl_await(L, mb_conn_wait(conn), query_k, (lua_KContext)conn);
}

static int copy_get_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)status;
    mb_conn *conn = (mb_conn *)ctx;
    if (mb_conn_failed_index(conn) >= 0 || mb_conn_state(conn) == MB_CONN_CLOSED)
        return fail_op(L, conn);
    size_t len;
    const char *chunk = mb_conn_copy_chunk(conn, &len);
    if (!chunk)
        return 0;
    lua_pushlstring(L, chunk, len);
    return 1;
}

/* conn:copy_get() -> a chunk of whole rows, nothing when the copy is over, or nil, err */
static int l_conn_copy_get(lua_State *L)
{
    mb_conn *conn = check_wait(L);
    mb_error err = MB_ERROR_INIT;
    if (!mb_conn_copy_get(conn, &err))
        return mbl_fail(L, &err);
    return mbl_await(L, mb_conn_wait(conn), copy_get_k, (lua_KContext)conn);
}

/* Facts ------------------------------------------------------------------------------------------- */

/* conn:state() -> "closed", "idle", "in_txn", "failed", "busy", "copy_in" or "copy_out" */
static int l_conn_state(lua_State *L)
{
    static const char *const names[] = {
        [MB_CONN_CLOSED] = "closed", [MB_CONN_IDLE] = "idle",       [MB_CONN_IN_TXN] = "in_txn",
        [MB_CONN_FAILED] = "failed", [MB_CONN_BUSY] = "busy",       [MB_CONN_COPY_IN] = "copy_in",
        [MB_CONN_COPY_OUT] = "copy_out"};
    lua_pushstring(L, names[mb_conn_state(check(L))]);
    return 1;
}

static int l_conn_pid(lua_State *L)
{
    lua_pushinteger(L, mb_conn_backend_pid(check(L)));
    return 1;
}

static int l_conn_server_version(lua_State *L)
{
    lua_pushinteger(L, mb_conn_server_version(check(L)));
    return 1;
}

static int l_conn_parameter(lua_State *L)
{
    lua_pushstring(L, mb_conn_parameter(check(L), luaL_checkstring(L, 2)));
    return 1;
}

static void set_text(lua_State *L, const char *key, const char *value)
{
    if (value) {
        lua_pushstring(L, value);
        lua_setfield(L, -2, key);
    }
}

/* A list of notices on its way to Lua, freed by __gc if a push raises. */
typedef struct notice_box {
    mb_notice *list;
} notice_box;

static int l_notices_gc(lua_State *L)
{
    notice_box *box = lua_touserdata(L, 1);
    mb_notice_free(box->list);
    box->list = NULL;
    return 0;
}

/* conn:notices() -> array of {severity, sqlstate, message, detail, hint} since the last call */
static int l_conn_notices(lua_State *L)
{
    mb_conn *conn = check(L);
    notice_box *box = lua_newuserdatauv(L, sizeof *box, 0);
    box->list = NULL;
    if (luaL_newmetatable(L, "moonbird.notices")) {
        lua_pushcfunction(L, l_notices_gc);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    box->list = mb_conn_take_notices(conn);
    lua_newtable(L);
    int i = 0;
    for (const mb_notice *n = box->list; n; n = n->next) {
        lua_createtable(L, 0, 5);
        set_text(L, "severity", n->severity);
        set_text(L, "sqlstate", n->sqlstate);
        set_text(L, "message", n->message);
        set_text(L, "detail", n->detail);
        set_text(L, "hint", n->hint);
        lua_rawseti(L, -2, ++i);
    }
    return 1;
}

/* conn:close(): closes the connection; it can be opened again. */
static int l_conn_close(lua_State *L)
{
    mb_conn_close(check(L));
    return 0;
}

static int leave_k(lua_State *L, int status, lua_KContext ctx)
{
    (void)L;
    (void)status;
    mb_conn_close((mb_conn *)ctx);
    return 0;
}

/* conn:leave(): closes the connection and waits until the server has ended its backend. */
static int l_conn_leave(lua_State *L)
{
    mb_conn *conn = check_wait(L);
    mb_conn_leave(conn);
    return mbl_await(L, mb_conn_wait(conn), leave_k, (lua_KContext)conn);
}

/* __gc and __close. A task that waits on the connection keeps it on its stack, so nobody does now. */
static int l_conn_free(lua_State *L)
{
    conn_box *box = luaL_checkudata(L, 1, CONN);
    mb_conn_free(&box->conn);
    return 0;
}

int luaopen_moonbird_native_conn(lua_State *L)
{
    static const luaL_Reg methods[] = {{"connect", l_conn_connect},
                                       {"ping", l_conn_ping},
                                       {"query", l_conn_query},
                                       {"send", l_conn_send},
                                       {"receive", l_conn_receive},
                                       {"simple", l_conn_simple},
                                       {"batch", l_conn_batch},
                                       {"send_batch", l_conn_send_batch},
                                       {"receive_batch", l_conn_receive_batch},
                                       {"forget_prepared", l_conn_forget_prepared},
                                       {"copy_put", l_conn_copy_put},
                                       {"copy_end", l_conn_copy_end},
                                       {"copy_get", l_conn_copy_get},
                                       {"state", l_conn_state},
                                       {"pid", l_conn_pid},
                                       {"server_version", l_conn_server_version},
                                       {"parameter", l_conn_parameter},
                                       {"notices", l_conn_notices},
                                       {"close", l_conn_close},
                                       {"leave", l_conn_leave},
                                       {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"new", l_conn_new}, {"iterator", mbl_result_iterator}, {NULL, NULL}};
    mbl_result_open(L);
    if (luaL_newmetatable(L, CONN)) {
        lua_newtable(L);
        luaL_setfuncs(L, methods, 0);
        lua_setfield(L, -2, "__index");
        lua_pushcfunction(L, l_conn_free);
        lua_setfield(L, -2, "__gc");
        lua_pushcfunction(L, l_conn_free);
        lua_setfield(L, -2, "__close");
        lua_pushboolean(L, false);
        lua_setfield(L, -2, "__metatable");
    }
    luaL_newlib(L, functions);
    return 1;
}
