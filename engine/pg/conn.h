/*
 * conn.h - one connection to a PostgreSQL server, driven by the event loop.
 *
 * A connection does one operation at a time. Each mb_conn_* that starts one either refuses at once
 * (returns false, err filled) or begins it; the caller then waits for mb_conn_wait(conn) and reads the
 * outcome with mb_conn_finish() and mb_conn_take_result(). Callbacks run in the loop's turn.
 *
 * Cancelling the waiting task sends a cancel request; the operation ends when the server answers, or
 * after MB_CONN_GRACE_MS when the connection is cut.
 */
#ifndef MB_CONN_H
#define MB_CONN_H

#include "engine/base/error.h"
#include "engine/loop/task.h"
#include "engine/pg/result.h"

/* How long a server may take to answer a cancel request before the connection is cut. */
#define MB_CONN_GRACE_MS 5000
/* How long a server may take to end a backend whose client has left. It takes a millisecond or two; one that runs
 * a statement goes on until it writes. */
#define MB_CONN_LEAVE_MS 2000

typedef struct mb_conn mb_conn;

typedef enum mb_conn_status {
    MB_CONN_CLOSED,   /* never connected, closed or lost */
    MB_CONN_IDLE,     /* ready, outside any transaction */
    MB_CONN_IN_TXN,   /* ready, inside a transaction block */
    MB_CONN_FAILED,   /* ready, inside a transaction block that failed */
    MB_CONN_BUSY,     /* an operation is under way */
    MB_CONN_COPY_IN,  /* wants mb_conn_copy_put() or _end() */
    MB_CONN_COPY_OUT  /* wants mb_conn_copy_get() until it is over */
} mb_conn_status;

/* libpq's version as 150020. */
int mb_conn_library_version(void);
/* A new closed connection; free it with mb_conn_free(), which also closes. */
mb_conn *mb_conn_new(mb_sched *sched);
void mb_conn_free(mb_conn **conn);
/* Closes at once; a running operation ends as lost. Safe to call twice. */
void mb_conn_close(mb_conn *conn);
/* Closes, and waits until the server has ended the backend (behind a pooler: has let the client go), at most
 * MB_CONN_LEAVE_MS. Can't fail; a cancelled task waits no longer, and keeps its request to stop. */
void mb_conn_leave(mb_conn *conn);

mb_wait *mb_conn_wait(mb_conn *conn);
mb_conn_status mb_conn_state(const mb_conn *conn);
int mb_conn_backend_pid(const mb_conn *conn);
/* Server version as 150018. */
int mb_conn_server_version(const mb_conn *conn);
/* A reported parameter ("server_encoding"), owned by the connection, or NULL. */
const char *mb_conn_parameter(const mb_conn *conn, const char *name);

/* Connects in a worker thread (libpq resolves names in line and blocks there, not here). Both arrays
 * end with NULL and are copied. */
void mb_conn_connect(mb_conn *conn, const char *const *keywords, const char *const *values);
/* Asks whether a server accepts connections there, whatever database, user and password say; needs no
 * login. The outcome is MB_OK, or MB_CONNECT with the reason. */
void mb_conn_ping(mb_conn *conn, const char *const *keywords, const char *const *values);
/* One statement by the extended protocol, with values bound as text (NULL is SQL NULL). All text is sent before
 * return. */
MB_NODISCARD bool mb_conn_query(mb_conn *conn, const char *sql, const char *const *values,
                                int count, mb_error *err);
/* A whole string by the simple protocol: several statements are one implicit transaction. */
MB_NODISCARD bool mb_conn_simple(mb_conn *conn, const char *sql, mb_error *err);
/* Several statements by one pipeline with one Sync: one implicit transaction, one round trip. Add the
 * statements, then send. A refusal leaves the connection closed. */
MB_NODISCARD bool mb_conn_batch_begin(mb_conn *conn, mb_error *err);
MB_NODISCARD bool mb_conn_batch_add(mb_conn *conn, const char *sql, const char *const *values,
                                    int count, mb_error *err);
/* The same for a statement that comes again and again: the connection prepares it under `name` when it is first
 * used (in the same round trip). At most 8 names; not through a transaction pooler. A statement that the server
 * does not know any more (DISCARD ALL) is an error 26000 once, and prepared anew after it. */
MB_NODISCARD bool mb_conn_batch_add_prepared(mb_conn *conn, const char *name, const char *sql,
                                             const char *const *values, int count, mb_error *err);
MB_NODISCARD bool mb_conn_batch_send(mb_conn *conn, mb_error *err);
/* The server has forgotten what was prepared (DISCARD ALL, DEALLOCATE ALL). */
void mb_conn_forget_prepared(mb_conn *conn);
/* COPY FROM STDIN: `data` must stay until the wait is done. `reason` NULL ends it well. */
MB_NODISCARD bool mb_conn_copy_put(mb_conn *conn, const char *data, size_t len, mb_error *err);
MB_NODISCARD bool mb_conn_copy_end(mb_conn *conn, const char *reason, mb_error *err);
/* COPY TO STDOUT: the next chunk of whole rows. After the wait mb_conn_copy_chunk() gives it, or NULL
 * when the copy is over. */
MB_NODISCARD bool mb_conn_copy_get(mb_conn *conn, mb_error *err);
const char *mb_conn_copy_chunk(mb_conn *conn, size_t *len);

/* After the wait: MB_OK, or moves the operation's error into err and returns its code. */
mb_code mb_conn_finish(mb_conn *conn, mb_error *err);
/* Index (from 0) of the statement that failed in a batch or in a simple string; -1 if none. */
int mb_conn_failed_index(const mb_conn *conn);
/* Frees the results that nobody took. */
void mb_conn_drop_results(mb_conn *conn);
/* The operation's next result, owned by the caller; NULL when there is no more. */
mb_result *mb_conn_take_result(mb_conn *conn);

/* A notice of the server; all text owned by the notice. */
typedef struct mb_notice mb_notice;
struct mb_notice {
    char *severity;
    char sqlstate[6];
    char *message;
    char *detail;
    char *hint;
    mb_notice *next;
};
/* Takes all notices since the last call; the caller frees the list with mb_notice_free(). */
mb_notice *mb_conn_take_notices(mb_conn *conn);
void mb_notice_free(mb_notice *list);

#endif
