/*
 * answer.c - moving bytes and reading answers. libpq's rules for a non-blocking connection: on readable
 * PQconsumeInput, then PQflush while something is pending; watch for writable only while PQflush says 1;
 * PQgetResult until NULL.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/pg/conn_internal.h"

/* A chunk of COPY TO STDOUT handed to the reader at once. */
#define COPY_CHUNK (64 * 1024)

static void keep_result(mb_conn *conn, PGresult *res)
{
    if (conn->result_count == conn->result_cap) {
        conn->result_cap = conn->result_cap ? conn->result_cap * 2 : 8;
        conn->results = mb_realloc(conn->results, conn->result_cap * sizeof *conn->results);
    }
    conn->results[conn->result_count++] = mb_result_wrap(res);
}

/* The first error of an operation is the one that counts. */
static void keep_error(mb_conn *conn, const PGresult *res)
{
    bool lost = PQstatus(conn->pg) == CONNECTION_BAD;
    if (conn->error.code == MB_OK) {
        mb_pg_error_from_result(&conn->error, res, lost);
        conn->failed_index = conn->statement_index;
    } else if (lost) {
        conn->error.code = MB_CONNECTION_LOST;
    }
}

static void lose(mb_conn *conn)
{
    if (conn->error.code == MB_OK)
        mb_pg_error_from_conn(&conn->error, conn->pg, MB_CONNECTION_LOST);
    else
        conn->error.code = MB_CONNECTION_LOST;
    mb_conn_close(conn); /* ends the operation */
}

/* The Parse message at the present place of a batch; NULL when there is none. */
static mb_preparing *preparing_now(mb_conn *conn)
{
    for (int i = 0; i < conn->preparing_count; i++)
        if (conn->op == MB_OP_BATCH && conn->preparing[i].at == conn->pipeline_index)
            return &conn->preparing[i];
    return NULL;
}

static void now_prepared(mb_conn *conn, mb_preparing *item)
{
    if (item->name && conn->prepared_count < MB_MAX_PREPARED) {
        conn->prepared[conn->prepared_count++] = item->name;
        item->name = NULL;
    }
}

/* Takes one PGresult; true when the operation is over. */
static bool take(mb_conn *conn, PGresult *res)
{
    switch (PQresultStatus(res)) {
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
        conn->copy = PQresultStatus(res) == PGRES_COPY_IN ? MB_CONN_COPY_IN : MB_CONN_COPY_OUT;
        PQclear(res);
        return true;
    case PGRES_PIPELINE_SYNC:
        PQclear(res);
        PQexitPipelineMode(conn->pg);
        return true;
    case PGRES_FATAL_ERROR:
    case PGRES_BAD_RESPONSE:
        if (strcmp(PQresultErrorField(res, PG_DIAG_SQLSTATE) ? PQresultErrorField(res, PG_DIAG_SQLSTATE) : "",
                   "26000") == 0)
            mb_conn_forget_prepared(conn);
        keep_error(conn, res);
        PQclear(res);
        return false;
    case PGRES_PIPELINE_ABORTED:
        PQclear(res);
        return false;
    default:
        if (preparing_now(conn)) {
            now_prepared(conn, preparing_now(conn));
            PQclear(res);
            return false;
        }
        keep_result(conn, res);
        if (conn->op == MB_OP_QUERY)
            conn->statement_index++;
        return false;
    }
}

static void read_results(mb_conn *conn)
{
    bool over = false;
    while (!over && !PQisBusy(conn->pg)) {
        PGresult *res = PQgetResult(conn->pg);
        if (res) {
            over = take(conn, res);
        } else if (PQstatus(conn->pg) == CONNECTION_BAD) {
            lose(conn);
            return;
        } else if (conn->op == MB_OP_BATCH) {
            if (!preparing_now(conn)) /* NULL parts two messages of a pipeline */
                conn->statement_index++;
            conn->pipeline_index++;
        } else {
            over = true;
        }
    }
    if (over)
        mb_conn_end_op(conn);
}

/* libpq queues what it can; what it can't waits until the socket is writable. */
static void write_copy(mb_conn *conn)
{
    if (conn->put_data) {
        int queued = PQputCopyData(conn->pg, conn->put_data, (int)conn->put_len);
        if (queued < 0) {
            lose(conn);
            return;
        }
        if (queued)
            conn->put_data = NULL;
    }
    int pending = PQflush(conn->pg);
    if (pending < 0) {
        lose(conn);
        return;
    }
    mb_poll_set(conn->poll, true, pending > 0 || conn->put_data);
    if (!pending && !conn->put_data)
        mb_conn_end_op(conn);
}

void mb_conn_end_copy_out(mb_conn *conn)
{
    conn->copy = MB_CONN_IDLE;
    conn->copy_over = false;
    conn->op = MB_OP_QUERY;
}

static void read_copy(mb_conn *conn)
{
    for (;;) {
        char *row = NULL;
        int len = PQgetCopyData(conn->pg, &row, 1);
        if (len > 0) {
            mb_buf_add(&conn->chunk, row, (size_t)len);
            PQfreemem(row);
            if (conn->chunk.len < COPY_CHUNK)
                continue;
            mb_conn_end_op(conn);
            return;
        }
        if (len == 0) { /* nothing more now: hand over what there is, or wait */
            if (conn->chunk.len)
                mb_conn_end_op(conn);
            return;
        }
        if (conn->chunk.len) { /* the last rows; the next call reads how the copy ended */
            conn->copy_over = true;
            mb_conn_end_op(conn);
            return;
        }
        mb_conn_end_copy_out(conn);
        read_results(conn);
        return;
    }
}

/* Nobody waits: takes notices and parameter changes in, and the server's last words when it hangs up. */
static void pump_idle(mb_conn *conn)
{
    if (PQstatus(conn->pg) != CONNECTION_BAD) {
        PQisBusy(conn->pg);
        return;
    }
    mb_pg_error_from_conn(&conn->last_words, conn->pg, MB_CONNECTION_LOST);
    mb_conn_close(conn);
}

void mb_conn_pump(mb_conn *conn, bool readable)
{
    bool broken = readable && !PQconsumeInput(conn->pg);
    if (conn->op == MB_OP_NONE) {
        pump_idle(conn);
        return;
    }
    if (broken && conn->op != MB_OP_QUERY && conn->op != MB_OP_BATCH) {
        lose(conn); /* in a query or batch the loss comes as a result, with the server's last words */
        return;
    }
    if (conn->op == MB_OP_COPY_PUT) {
        write_copy(conn);
        return;
    }
    if (PQstatus(conn->pg) == CONNECTION_OK) {
        int pending = PQflush(conn->pg);
        mb_poll_set(conn->poll, true, pending > 0);
    }
    if (conn->op == MB_OP_COPY_GET)
        read_copy(conn);
    else
        read_results(conn);
    /* Last words that came while nobody waited: no result is to come, and a dead socket wakes
     * nobody. */
    if (conn->op != MB_OP_NONE && conn->pg && PQstatus(conn->pg) == CONNECTION_BAD)
        lose(conn);
}
