/*
 * leave.c - closing a connection and waiting until the server has closed it, too.
 *
 * A backend goes on for a moment after its client: until it has ended it counts for max_connections and the
 * limits of roles and databases, and holds its locks. Its end of the socket is the last thing it closes, so the
 * end of the stream says that it is gone. libpq has no call for that: a second descriptor of the socket outlives
 * PQfinish(). Runs in the loop's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/pg/conn_internal.h"

void mb_conn_end_leave(mb_conn *conn)
{
    if (conn->op != MB_OP_LEAVE)
        return;
    mb_poll_close(&conn->poll);
    close(conn->leaving);
    mb_conn_end_op(conn);
}

/* Reads past what the server still had to say; one piece a turn, it may be at a large answer. */
static void on_socket(void *owner, bool readable, bool writable, bool failed)
{
    (void)readable;
    (void)writable;
    (void)failed; /* reading tells it */
    mb_conn *conn = owner;
    char rest[4096];
    ssize_t n = recv(conn->leaving, rest, sizeof rest, MSG_DONTWAIT);
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)))
        mb_poll_set(conn->poll, true, false);
    else
        mb_conn_end_leave(conn);
}

static void on_patience_over(void *owner)
{
    mb_conn_end_leave(owner);
}

void mb_conn_leave(mb_conn *conn)
{
    int fd = conn->pg ? fcntl(PQsocket(conn->pg), F_DUPFD_CLOEXEC, 0) : -1;
    mb_conn_close(conn);
    if (fd < 0)
        return;
    conn->leaving = fd;
    mb_loop *loop = mb_sched_loop(conn->sched);
    conn->poll = mb_poll_new(loop, fd, on_socket, conn);
    conn->grace = mb_timer_new(loop, on_patience_over, conn);
    mb_conn_begin_op(conn, MB_OP_LEAVE);
    mb_poll_set(conn->poll, true, false);
    mb_timer_start(conn->grace, MB_CONN_LEAVE_MS);
}
