/*
 * conn.c - the life of a connection: connect, operations, cancel, close. Reading the answers is in
 * answer.c. Owner of the PGconn and of everything that hangs on it; runs in the loop's thread except
 * connect_work() and cancel_work(), which run in a worker and touch only their own job.
 */
#include "engine/pg/conn.h"

#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/pg/conn_internal.h"

/* Connecting -------------------------------------------------------------------------------------- */

typedef struct connect_job {
    mb_conn *conn; /* NULL once nobody waits any more */
    char **keywords;
    char **values;
    PGconn *pg;
    bool ping; /* only ask, in `answer` */
    PGPing answer;
} connect_job;

static char **copy_strings(const char *const *list)
{
    size_t count = 0;
    while (list[count])
        count++;
    char **copy = mb_calloc(count + 1, sizeof *copy);
    for (size_t i = 0; i < count; i++)
        copy[i] = mb_strdup(list[i]);
    return copy;
}

static void free_strings(char **list)
{
    for (size_t i = 0; list[i]; i++)
        free(list[i]);
    free(list);
}

static void connect_work(void *arg)
{
    connect_job *job = arg;
    if (job->ping) {
        job->answer = PQpingParams((const char *const *)job->keywords,
                                   (const char *const *)job->values, 0);
        return;
    }
    job->pg = PQconnectdbParams((const char *const *)job->keywords,
                                (const char *const *)job->values, 0);
}

static void on_notice(void *arg, const PGresult *res)
{
    mb_conn *conn = arg;
    const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *detail = PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL);
    const char *hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    mb_notice *notice = mb_calloc(1, sizeof *notice);
    notice->severity = mb_strdup(severity ? severity : "NOTICE");
    notice->message = mb_strdup(message ? message : "");
    notice->detail = detail ? mb_strdup(detail) : NULL;
    notice->hint = hint ? mb_strdup(hint) : NULL;
    if (sqlstate)
        strncpy(notice->sqlstate, sqlstate, sizeof notice->sqlstate - 1);
    *conn->last_notice = notice;
    conn->last_notice = &notice->next;
}

static void on_socket(void *owner, bool readable, bool writable, bool failed)
{
    (void)writable; /* mb_conn_pump() flushes whatever is pending */
    mb_conn_pump(owner, readable || failed);
}

static void set_ping_error(mb_error *err, PGPing answer)
{
    if (answer == PQPING_REJECT)
        mb_error_set(err, MB_CONNECT, "the server is starting up, shutting down or recovering");
    else if (answer == PQPING_NO_RESPONSE)
        mb_error_set(err, MB_CONNECT, "the server does not answer");
    else if (answer == PQPING_NO_ATTEMPT)
        mb_error_set(err, MB_CONNECT, "the connection settings make no sense to libpq");
}

static void connect_done(void *arg)
{
    connect_job *job = arg;
    mb_conn *conn = job->conn;
    if (!conn) {
        PQfinish(job->pg);
    } else if (job->ping) {
        set_ping_error(&conn->error, job->answer);
        conn->connecting = NULL;
        mb_conn_end_op(conn);
    } else if (PQstatus(job->pg) != CONNECTION_OK) {
        mb_pg_error_from_conn(&conn->error, job->pg, MB_CONNECT);
        PQfinish(job->pg);
        conn->connecting = NULL;
        mb_conn_end_op(conn);
    } else {
        conn->connecting = NULL;
        conn->pg = job->pg;
        PQsetnonblocking(conn->pg, 1);
        PQsetNoticeReceiver(conn->pg, on_notice, conn);
        conn->cancel_handle = PQgetCancel(conn->pg);
        conn->poll = mb_poll_new(mb_sched_loop(conn->sched), PQsocket(conn->pg), on_socket, conn);
        mb_poll_set(conn->poll, true, false);
        mb_conn_end_op(conn);
    }
    free_strings(job->keywords);
    free_strings(job->values);
    free(job);
}

static void start_job(mb_conn *conn, const char *const *keywords, const char *const *values, bool ping)
{
    mb_conn_close(conn);
    connect_job *job = mb_calloc(1, sizeof *job);
    job->conn = conn;
    job->keywords = copy_strings(keywords);
    job->values = copy_strings(values);
    job->ping = ping;
    conn->connecting = job;
    mb_conn_begin_op(conn, MB_OP_CONNECT);
    mb_work_run(mb_sched_loop(conn->sched), connect_work, connect_done, job);
}

void mb_conn_connect(mb_conn *conn, const char *const *keywords, const char *const *values)
{
    start_job(conn, keywords, values, false);
}

void mb_conn_ping(mb_conn *conn, const char *const *keywords, const char *const *values)
{
    start_job(conn, keywords, values, true);
}

/* Cancelling -------------------------------------------------------------------------------------- */

typedef struct cancel_job {
    PGcancel *handle;
} cancel_job;

static void cancel_work(void *arg)
{
    cancel_job *job = arg;
    char message[256];
    /* A failure needs no report: the grace timer cuts the connection then. */
    PQcancel(job->handle, message, sizeof message);
}

static void cancel_done(void *arg)
{
    cancel_job *job = arg;
    PQfreeCancel(job->handle);
    free(job);
}

static void on_grace_over(void *owner)
{
    mb_conn *conn = owner;
    if (conn->op != MB_OP_NONE && conn->pg)
        shutdown(PQsocket(conn->pg), SHUT_RDWR); /* the read side sees the end and finishes the op */
}

static void on_cancel(mb_wait *wait)
{
    mb_conn *conn = (mb_conn *)((char *)wait - offsetof(mb_conn, wait));
    if (conn->op == MB_OP_CONNECT) {
        conn->connecting->conn = NULL;
        conn->connecting = NULL;
        mb_error_set(&conn->error, MB_INTERRUPTED, "interrupted while connecting");
        mb_conn_end_op(conn);
        return;
    }
    cancel_job *job = mb_calloc(1, sizeof *job);
    job->handle = PQgetCancel(conn->pg);
    mb_work_run(mb_sched_loop(conn->sched), cancel_work, cancel_done, job);
    if (!conn->grace)
        conn->grace = mb_timer_new(mb_sched_loop(conn->sched), on_grace_over, conn);
    mb_timer_start(conn->grace, MB_CONN_GRACE_MS);
}

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
    conn->wait.cancel = on_cancel;
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
    if (conn->connecting) {
        conn->connecting->conn = NULL;
        conn->connecting = NULL;
    }
    mb_poll_close(&conn->poll);
    mb_timer_close(&conn->grace);
    if (conn->cancel_handle)
        PQfreeCancel(conn->cancel_handle);
    conn->cancel_handle = NULL;
    if (conn->pg)
        PQfinish(conn->pg);
    conn->pg = NULL;
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

/* libpq wants parallel arrays. `count` 0 gives NULLs. */
typedef struct bound {
    const char **values;
    int *lengths;
    int *formats;
    Oid *types;
} bound;

static bound bind_params(const mb_param *params, int count)
{
    bound b = {NULL, NULL, NULL, NULL};
    if (!count)
        return b;
    size_t n = (size_t)count;
    b.values = mb_calloc(n, sizeof *b.values);
    b.lengths = mb_calloc(n, sizeof *b.lengths);
    b.formats = mb_calloc(n, sizeof *b.formats);
    b.types = mb_calloc(n, sizeof *b.types);
    for (size_t i = 0; i < n; i++) {
        b.values[i] = params[i].value;
        b.lengths[i] = (int)params[i].len;
        b.formats[i] = params[i].binary;
        b.types[i] = params[i].binary ? MB_OID_BYTEA : 0;
    }
    return b;
}

static int send_params(mb_conn *conn, const char *sql, const mb_param *params, int count)
{
    bound b = bind_params(params, count);
    int sent = PQsendQueryParams(conn->pg, sql, count, b.types, b.values, b.lengths, b.formats, 0);
    free(b.values);
    free(b.lengths);
    free(b.formats);
    free(b.types);
    return sent;
}

bool mb_conn_query(mb_conn *conn, const char *sql, const mb_param *params, int count, mb_error *err)
{
    if (!ready(conn, err))
        return false;
    if (!send_params(conn, sql, params, count))
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
    return PQenterPipelineMode(conn->pg) || refuse(conn, err);
}

bool mb_conn_batch_add(mb_conn *conn, const char *sql, const mb_param *params, int count,
                       mb_error *err)
{
    return send_params(conn, sql, params, count) || refuse(conn, err);
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
