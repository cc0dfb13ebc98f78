/*
 * connect.c - connecting, asking for a server, cancelling. What blocks runs in a worker thread and touches
 * only its own job there: connect_work(), cancel_work(). A job whose connection no longer waits cleans up
 * after itself.
 */
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
    mb_conn *conn = owner;
    /* An error of the socket comes while the server's last words may still wait to be read: it is watched on
     * until reading itself fails. Otherwise who waits for an answer would wait for ever. */
    if (failed)
        mb_poll_set(conn->poll, true, false);
    mb_conn_pump(conn, readable || failed);
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

void mb_conn_orphan_connect(mb_conn *conn)
{
    if (conn->connecting)
        conn->connecting->conn = NULL;
    conn->connecting = NULL;
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

void mb_conn_on_cancel(mb_wait *wait)
{
    mb_conn *conn = (mb_conn *)((char *)wait - offsetof(mb_conn, wait));
    if (conn->op == MB_OP_CONNECT) {
        mb_conn_orphan_connect(conn);
        mb_error_set(&conn->error, MB_INTERRUPTED, "interrupted while connecting");
        mb_conn_end_op(conn);
        return;
    }
    if (conn->op == MB_OP_LEAVE) {
        mb_conn_end_leave(conn);
        return;
    }
    cancel_job *job = mb_calloc(1, sizeof *job);
    job->handle = PQgetCancel(conn->pg);
    mb_work_run(mb_sched_loop(conn->sched), cancel_work, cancel_done, job);
    if (!conn->grace)
        conn->grace = mb_timer_new(mb_sched_loop(conn->sched), on_grace_over, conn);
    mb_timer_start(conn->grace, MB_CONN_GRACE_MS);
}
