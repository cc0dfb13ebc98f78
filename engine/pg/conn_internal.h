/*
 * conn_internal.h - the connection's inside, shared by conn.c (life, operations), connect.c, leave.c
 * and answer.c (reading).
 */
#ifndef MB_CONN_INTERNAL_H
#define MB_CONN_INTERNAL_H

#include "engine/base/buf.h"
#include "engine/pg/conn.h"
#include "engine/pg/internal.h"

typedef enum mb_op {
    MB_OP_NONE,
    MB_OP_CONNECT,
    MB_OP_QUERY, /* results until libpq has no more */
    MB_OP_BATCH, /* results until the pipeline's Sync */
    MB_OP_COPY_PUT,
    MB_OP_COPY_GET,
    MB_OP_LEAVE /* until the server has closed its end */
} mb_op;

/* Statements a connection keeps prepared, and those that a batch prepares on its way. */
#define MB_MAX_PREPARED 8

typedef struct mb_preparing {
    int at; /* place in the pipeline */
    char *name;
} mb_preparing;

struct mb_conn {
    mb_sched *sched;
    PGconn *pg;
    PGcancel *cancel_handle;
    mb_poll *poll;
    mb_timer *grace;
    struct connect_job *connecting;
    int leaving; /* the socket's second descriptor during MB_OP_LEAVE */
    mb_wait wait;
    mb_op op;
    mb_conn_status copy; /* MB_CONN_COPY_IN or _OUT while one is open, else MB_CONN_IDLE */
    bool copy_over;      /* the last rows were handed over, how it ended is not read yet */
    mb_error error;
    mb_error last_words; /* why an idle connection was lost */
    int statement_index; /* of the answer being read */
    int pipeline_index;  /* the same, with the batch's own Parse messages counted */
    int queued;          /* messages of the batch so far */
    mb_preparing preparing[MB_MAX_PREPARED];
    int preparing_count;
    char *prepared[MB_MAX_PREPARED];
    int prepared_count;
    int failed_index;
    mb_result **results;
    size_t result_count;
    size_t result_cap;
    size_t next_result;
    const char *put_data;
    size_t put_len;
    mb_buf chunk;
    mb_notice *notices;
    mb_notice **last_notice;
};

void mb_conn_begin_op(mb_conn *conn, mb_op op);
void mb_conn_end_op(mb_conn *conn);
/* The wait's cancel function: ends connecting and leaving, asks the server to cancel a statement. */
void mb_conn_on_cancel(mb_wait *wait);
/* Leaves a connection attempt to itself. */
void mb_conn_orphan_connect(mb_conn *conn);
/* Waits no longer for the server to close its end; nothing when nobody does. */
void mb_conn_end_leave(mb_conn *conn);
/* What the batch under way prepares is forgotten; what the connection has prepared stays. */
void mb_conn_drop_preparing(mb_conn *conn);
/* COPY OUT has no more rows: from here on the operation reads how it ended. */
void mb_conn_end_copy_out(mb_conn *conn);
/* Writes what is pending, reads what came, ends the operation when its answer is whole. */
void mb_conn_pump(mb_conn *conn, bool readable);

#endif
