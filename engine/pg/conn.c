/*
 * conn.c - the life of a connection: operations, state, close. Connecting and cancelling are in
 * connect.c, reading the answers is in answer.c. Owner of the PGconn and of everything that hangs on it;
 * runs in the loop's thread.
 */
#include "engine/pg/conn.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

#include "engine/pg/conn_internal.h"

/* Life -------------------------------------------------------------------------------------------- */

int mb_conn_library_version(void)
{
    return PQlibVersion();
}

mb_conn *mb_conn_new(mb_sched *sched)
{
    mb_conn *conn = mb_calloc(1, sizeof *conn);
    conn->sched = sched;
    conn->wait.done = true;
    conn->wait.cancel = mb_conn_on_cancel;
    conn->failed_index = -1;
    conn->last_notice = &conn->notices;
    return conn;
}

void mb_conn_drop_results(mb_conn *conn)
{
    for (size_t i = conn->next_result; i < conn->result_count; i++)
        mb_result_free(&conn->results[i]);
    conn->result_count = conn->next_result = 0;
}

void mb_conn_close(mb_conn *conn)
{
    mb_conn_orphan_connect(conn);
    mb_conn_end_leave(conn);
    mb_poll_close(&conn->poll);
    mb_timer_close(&conn->grace);
    if (conn->cancel_handle)
        PQfreeCancel(conn->cancel_handle);
    conn->cancel_handle = NULL;
    if (conn->pg)
        PQfinish(conn->pg);
    conn->pg = NULL;
    mb_conn_drop_preparing(conn);
    mb_conn_forget_prepared(conn);
    conn->copy = MB_CONN_IDLE;
    conn->copy_over = false;
    if (conn->op != MB_OP_NONE) {
        if (conn->error.code == MB_OK)
            mb_error_set(&conn->error, MB_CONNECTION_LOST, "the connection was closed");
        mb_conn_end_op(conn);
    }
}

void mb_conn_free(mb_conn **conn)
{
    if (!*conn)
        return;
    mb_conn_close(*conn);
    mb_conn_drop_results(*conn);
    free((*conn)->results);
    mb_notice_free((*conn)->notices);
    mb_buf_free(&(*conn)->chunk);
    mb_error_clear(&(*conn)->error);
    mb_error_clear(&(*conn)->last_words);
    free(*conn);
    *conn = NULL;
}

mb_wait *mb_conn_wait(mb_conn *conn)
{
    return &conn->wait;
}

mb_conn_status mb_conn_state(const mb_conn *conn)
{
    if (conn->op != MB_OP_NONE)
        return MB_CONN_BUSY;
    if (!conn->pg)
        return MB_CONN_CLOSED;
    if (conn->copy != MB_CONN_IDLE)
        return conn->copy;
    switch (PQtransactionStatus(conn->pg)) {
    case PQTRANS_IDLE:
        return MB_CONN_IDLE;
    case PQTRANS_INTRANS:
        return MB_CONN_IN_TXN;
    case PQTRANS_INERROR:
        return MB_CONN_FAILED;
    case PQTRANS_ACTIVE:
        return MB_CONN_BUSY;
    default:
        return MB_CONN_CLOSED;
    }
}

int mb_conn_backend_pid(const mb_conn *conn)
{
    return conn->pg ? PQbackendPID(conn->pg) : 0;
}

int mb_conn_server_version(const mb_conn *conn)
{
    return conn->pg ? PQserverVersion(conn->pg) : 0;
}

const char *mb_conn_parameter(const mb_conn *conn, const char *name)
{
    return conn->pg ? PQparameterStatus(conn->pg, name) : NULL;
}

/* Operations -------------------------------------------------------------------------------------- */

void mb_conn_begin_op(mb_conn *conn, mb_op op)
{
    conn->op = op;
    conn->failed_index = -1;
    conn->statement_index = 0;
    conn->pipeline_index = 0;
    mb_error_clear(&conn->error);
    mb_conn_drop_results(conn);
    mb_wait_begin(&conn->wait);
}

void mb_conn_end_op(mb_conn *conn)
{
    conn->op = MB_OP_NONE;
    if (conn->grace)
        mb_timer_stop(conn->grace);
    mb_wait_finish(&conn->wait);
}

/* True when a new statement may start. */
static bool ready(mb_conn *conn, mb_error *err)
{
    switch (mb_conn_state(conn)) {
    case MB_CONN_IDLE:
    case MB_CONN_IN_TXN:
    case MB_CONN_FAILED:
        return true;
    case MB_CONN_CLOSED:
        mb_error_set(err, MB_CONNECTION_LOST, "%s",
                     conn->last_words.message ? conn->last_words.message
                                              : "the connection is closed");
        return false;
    default:
        mb_error_set(err, MB_INTERNAL, "the connection is busy with another statement");
        return false;
    }
}

static bool refuse(mb_conn *conn, mb_error *err)
{
    mb_pg_error_from_conn(err, conn->pg, MB_CONNECTION_LOST);
    mb_conn_close(conn);
    return false;
}

static int send_params(mb_conn *conn, const char *sql, const char *const *values, int count)
{
    return PQsendQueryParams(conn->pg, sql, count, NULL, values, NULL, NULL, 0);
}

bool mb_conn_query(mb_conn *conn, const char *sql, const char *const *values, int count,
                   mb_error *err)
{
    if (!ready(conn, err))
        return false;
    if (!send_params(conn, sql, values, count))
        return refuse(conn, err);
    mb_conn_begin_op(conn, MB_OP_QUERY);
    mb_conn_pump(conn, false);
    return true;
}

bool mb_conn_simple(mb_conn *conn, const char *sql, mb_error *err)
{
    if (!ready(conn, err))
        return false;
    if (!PQsendQuery(conn->pg, sql))
        return refuse(conn, err);
    mb_conn_begin_op(conn, MB_OP_QUERY);
    mb_conn_pump(conn, false);
    return true;
}

bool mb_conn_batch_begin(mb_conn *conn, mb_error *err)
{
    if (!ready(conn, err))
        return false;
    mb_conn_drop_preparing(conn);
    conn->queued = 0;
    return PQenterPipelineMode(conn->pg) || refuse(conn, err);
}

bool mb_conn_batch_add(mb_conn *conn, const char *sql, const char *const *values, int count,
                       mb_error *err)
{
    conn->queued++;
    return send_params(conn, sql, values, count) || refuse(conn, err);
}

/* Whether the server has, or by then will have, a statement of that name. */
static bool is_prepared(const mb_conn *conn, const char *name)
{
    for (int i = 0; i < conn->prepared_count; i++)
        if (strcmp(conn->prepared[i], name) == 0)
            return true;
    for (int i = 0; i < conn->preparing_count; i++)
        if (strcmp(conn->preparing[i].name, name) == 0)
            return true;
    return false;
}

bool mb_conn_batch_add_prepared(mb_conn *conn, const char *name, const char *sql,
                                const char *const *values, int count, mb_error *err)
{
    if (!is_prepared(conn, name)) {
        if (conn->prepared_count + conn->preparing_count == MB_MAX_PREPARED)
            return mb_conn_batch_add(conn, sql, values, count, err);
        if (!PQsendPrepare(conn->pg, name, sql, count, NULL))
            return refuse(conn, err);
        conn->preparing[conn->preparing_count++] =
            (mb_preparing){.at = conn->queued++, .name = mb_strdup(name)};
    }
    conn->queued++;
    return PQsendQueryPrepared(conn->pg, name, count, values, NULL, NULL, 0) || refuse(conn, err);
}

void mb_conn_drop_preparing(mb_conn *conn)
{
    for (int i = 0; i < conn->preparing_count; i++)
        free(conn->preparing[i].name);
    conn->preparing_count = 0;
}

void mb_conn_forget_prepared(mb_conn *conn)
{
    for (int i = 0; i < conn->prepared_count; i++)
        free(conn->prepared[i]);
    conn->prepared_count = 0;
}

bool mb_conn_batch_send(mb_conn *conn, mb_error *err)
{
    if (!PQpipelineSync(conn->pg))
        return refuse(conn, err);
    mb_conn_begin_op(conn, MB_OP_BATCH);
    mb_conn_pump(conn, false);
    return true;
}

static bool in_copy(mb_conn *conn, mb_conn_status wanted, mb_error *err)
{
    if (mb_conn_state(conn) == wanted)
        return true;
    mb_error_set(err, MB_INTERNAL, "no copy is under way on this connection");
    return false;
}

bool mb_conn_copy_put(mb_conn *conn, const char *data, size_t len, mb_error *err)
{
    if (!in_copy(conn, MB_CONN_COPY_IN, err))
        return false;
    conn->put_data = data;
    conn->put_len = len;
    mb_conn_begin_op(conn, MB_OP_COPY_PUT);
    mb_conn_pump(conn, false);
    return true;
}

bool mb_conn_copy_end(mb_conn *conn, const char *reason, mb_error *err)
{
    if (!in_copy(conn, MB_CONN_COPY_IN, err))
        return false;
    if (PQputCopyEnd(conn->pg, reason) < 0)
        return refuse(conn, err);
    conn->copy = MB_CONN_IDLE;
    mb_conn_begin_op(conn, MB_OP_QUERY);
    mb_conn_pump(conn, false);
    return true;
}

bool mb_conn_copy_get(mb_conn *conn, mb_error *err)
{
    if (!in_copy(conn, MB_CONN_COPY_OUT, err))
        return false;
    mb_buf_clear(&conn->chunk);
    mb_conn_begin_op(conn, MB_OP_COPY_GET);
    if (conn->copy_over)
        mb_conn_end_copy_out(conn);
    mb_conn_pump(conn, false);
    return true;
}

const char *mb_conn_copy_chunk(mb_conn *conn, size_t *len)
{
    *len = conn->chunk.len;
    return conn->chunk.len ? conn->chunk.data : NULL;
}

mb_code mb_conn_finish(mb_conn *conn, mb_error *err)
{
    if (conn->error.code == MB_OK)
        return MB_OK;
    mb_error_move(err, &conn->error);
    return err->code;
}

int mb_conn_failed_index(const mb_conn *conn)
{
    return conn->failed_index;
}

mb_result *mb_conn_take_result(mb_conn *conn)
{
    if (conn->next_result == conn->result_count)
        return NULL;
    mb_result *result = conn->results[conn->next_result];
    conn->results[conn->next_result++] = NULL;
    return result;
}

mb_notice *mb_conn_take_notices(mb_conn *conn)
{
    mb_notice *list = conn->notices;
    conn->notices = NULL;
    conn->last_notice = &conn->notices;
    return list;
}

void mb_notice_free(mb_notice *list)
{
    while (list) {
        mb_notice *next = list->next;
        free(list->severity);
        free(list->message);
        free(list->detail);
        free(list->hint);
        free(list);
        list = next;
    }
}
