/*
 * bench_tenants [--prepared] [--databases] CONNINFO LIKE FILE VERSION ID CONNECTIONS
 *
 * What a careful programmer would write by hand to migrate many tenants of a database: nothing but
 * libpq and poll(). It is what the benchmark holds the engine against, so it does what the engine
 * does and not less: for each tenant one transaction of the same settings, the same door (enter),
 * the statements of FILE (one per line) and the same row of the journal, sent as one pipeline with
 * one Sync, committed without waiting for the disk; at the end one commit that waits for all of
 * them. The journal must be there already.
 *
 * LIKE selects schemas, or with --databases databases of which each has a journal of its own: there
 * a connection is opened, used for one tenant and closed. --prepared prepares the two statements
 * that are the same for all tenants.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define MAX_SLOTS 256
#define MAX_STATEMENTS 256

static const char ENTER[] =
    "select set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true), "
    "set_config('idle_in_transaction_session_timeout', $3, true), "
    "set_config('synchronous_commit', $4, true), set_config('search_path', $5, true), "
    "moonbird.enter($6, $7)";
/* The tenant of a database has no schema, so its search_path is the session's own. */
static const char ENTER_DATABASE[] =
    "select set_config('lock_timeout', $1, true), set_config('statement_timeout', $2, true), "
    "set_config('idle_in_transaction_session_timeout', $3, true), "
    "set_config('synchronous_commit', $4, true), moonbird.enter($5, $6)";
static const char RECORD[] = "select moonbird.record($1, $2, $3::jsonb)";
static const char SCHEMAS[] =
    "select nspname, quote_ident(nspname), coalesce(j.head, 0) from pg_namespace left join "
    "(select target, max(ordinal) as head from moonbird.journal group by target) j "
    "on j.target = nspname "
    "where nspname like $1 order by 1";
static const char DATABASES[] =
    "select datname, datname, 0 from pg_database where datname like $1 order by 1";
static const char HEAD[] =
    "select coalesce(max(ordinal), 0) from moonbird.journal where target = $1";
static const char FLUSH[] = "select pg_logical_emit_message(true, 'bench', 'flush')";

typedef enum { CONNECTING, PREPARING, READING_HEAD, STEPPING, ENDED } phase;

typedef struct {
    PGconn *pg;
    phase phase;
    int tenant;
    short events; /* what poll() is to wait for */
    long head;
} slot;

static struct {
    const char *conninfo;
    bool prepared, databases;
    char *statements[MAX_STATEMENTS];
    int statement_count;
    char event[2048];
    PGresult *tenants; /* name, search_path, head */
    int tenant_count, next, finished;
    slot slots[MAX_SLOTS];
    int slot_count;
} job;

static _Noreturn void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("bench_tenants: ", stderr);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void read_statements(const char *path)
{
    FILE *file = fopen(path, "r");
    if (!file)
        die("%s: %s", path, strerror(errno));
    char *line = NULL;
    size_t size = 0;
    for (ssize_t n; (n = getline(&line, &size, file)) > 0;) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == ';'))
            line[--n] = '\0';
        if (n == 0)
            continue;
        if (job.statement_count == MAX_STATEMENTS)
            die("%s: more than %d statements", path, MAX_STATEMENTS);
        job.statements[job.statement_count++] = strdup(line);
    }
    free(line);
    fclose(file);
}

/* The event as the engine writes it, made once for all tenants: the same keys, values of the same
 * length. */
static void make_event(const char *version, const char *id)
{
    static const char hash[] = "3f1c9ad27be86054f1c0d9a2b3e47586d9c8b7a6f5e4d3c2b1a0918273645546";
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    int n = snprintf(
        job.event, sizeof job.event,
        "{\"applies\":true,\"checksum\":\"%s\",\"compatibility\":\"backward_compatible\","
        "\"direction\":\"up\",\"engine\":\"0.1.0\",\"event\":\"apply\",\"host\":\"%s\","
        "\"id\":\"%s\",\"name\":\"%s\",\"os_user\":\"root\",\"outcome\":\"done\","
        "\"phase\":\"expand\",\"plan\":\"%s\",\"run\":\"%.32s\",\"scope\":\"tenant\","
        "\"version\":%s,\"version_text\":\"%s\"}",
        hash, host, id, id, hash, hash, version, version);
    if (n < 0 || (size_t)n >= sizeof job.event)
        die("the event is too long");
}

static PGresult *query(PGconn *pg, const char *sql, int count, const char *const *values)
{
    PGresult *result = PQexecParams(pg, sql, count, NULL, values, NULL, NULL, 0);
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        die("%s", PQerrorMessage(pg));
    return result;
}

static PGconn *connect_now(void)
{
    PGconn *pg = PQconnectdb(job.conninfo);
    if (PQstatus(pg) != CONNECTION_OK)
        die("%s", PQerrorMessage(pg));
    return pg;
}

/* Sending -------------------------------------------------------------------------------------- */

static void must(const slot *s, int ok)
{
    if (!ok)
        die("%s", PQerrorMessage(s->pg));
}

static void flush(slot *s)
{
    int left = PQflush(s->pg);
    if (left < 0)
        die("%s", PQerrorMessage(s->pg));
    s->events = (short)(POLLIN | (left ? POLLOUT : 0));
}

static void end_batch(slot *s, phase next)
{
    must(s, PQpipelineSync(s->pg));
    s->phase = next;
    flush(s);
}

static void send_one(const slot *s, const char *name, const char *sql, int count,
                     const char *const *values)
{
    if (name && job.prepared)
        must(s, PQsendQueryPrepared(s->pg, name, count, values, NULL, NULL, 0));
    else
        must(s, PQsendQueryParams(s->pg, sql, count, NULL, values, NULL, NULL, 0));
}

static void send_step(slot *s)
{
    const char *name = PQgetvalue(job.tenants, s->tenant, 0);
    char head[24], ordinal[24];
    snprintf(head, sizeof head, "%ld", s->head);
    snprintf(ordinal, sizeof ordinal, "%ld", s->head + 1);
    if (job.databases) {
        const char *enter[] = {"1000ms", "0ms", "0", "off", name, head};
        send_one(s, "enter", ENTER_DATABASE, 6, enter);
    } else {
        const char *path = PQgetvalue(job.tenants, s->tenant, 1);
        const char *enter[] = {"1000ms", "0ms", "0", "off", path, name, head};
        send_one(s, "enter", ENTER, 7, enter);
    }
    for (int i = 0; i < job.statement_count; i++)
        send_one(s, NULL, job.statements[i], 0, NULL);
    const char *record[] = {name, ordinal, job.event};
    send_one(s, "record", RECORD, 3, record);
    end_batch(s, STEPPING);
}

static void begin_connect(slot *s)
{
    if (job.databases) {
        const char *keys[] = {"dbname", "dbname", NULL};
        const char *values[] = {job.conninfo, PQgetvalue(job.tenants, s->tenant, 0), NULL};
        s->pg = PQconnectStartParams(keys, values, 1);
    } else {
        s->pg = PQconnectStart(job.conninfo);
    }
    if (!s->pg || PQstatus(s->pg) == CONNECTION_BAD)
        die("%s", PQerrorMessage(s->pg));
    s->phase = CONNECTING;
    s->events = POLLOUT;
}

/* The slot has nothing to do: the next tenant, or none any more. */
static void next_tenant(slot *s)
{
    if (s->pg && (job.databases || job.next == job.tenant_count)) {
        PQfinish(s->pg);
        s->pg = NULL;
    }
    if (job.next == job.tenant_count) {
        s->phase = ENDED;
        return;
    }
    s->tenant = job.next++;
    s->head = strtol(PQgetvalue(job.tenants, s->tenant, 2), NULL, 10);
    if (!s->pg)
        begin_connect(s);
    else
        send_step(s);
}

/* Receiving ------------------------------------------------------------------------------------ */

static void connected(slot *s)
{
    must(s, PQsetnonblocking(s->pg, 1) == 0);
    must(s, PQenterPipelineMode(s->pg));
    if (job.databases) {
        const char *values[] = {PQgetvalue(job.tenants, s->tenant, 0)};
        send_one(s, NULL, HEAD, 1, values);
        end_batch(s, READING_HEAD);
    } else if (job.prepared) {
        must(s, PQsendPrepare(s->pg, "enter", ENTER, 0, NULL));
        must(s, PQsendPrepare(s->pg, "record", RECORD, 0, NULL));
        end_batch(s, PREPARING);
    } else {
        send_step(s);
    }
}

static void poll_connect(slot *s)
{
    switch (PQconnectPoll(s->pg)) {
    case PGRES_POLLING_OK:
        connected(s);
        break;
    case PGRES_POLLING_READING:
        s->events = POLLIN;
        break;
    case PGRES_POLLING_WRITING:
        s->events = POLLOUT;
        break;
    default:
        die("%s", PQerrorMessage(s->pg));
    }
}

/* Whether the Sync of the batch has come. */
static bool receive(slot *s)
{
    must(s, PQconsumeInput(s->pg));
    while (!PQisBusy(s->pg)) {
        PGresult *result = PQgetResult(s->pg);
        if (!result)
            continue; /* between two statements of a pipeline */
        ExecStatusType status = PQresultStatus(result);
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK &&
            status != PGRES_PIPELINE_SYNC)
            die("tenant %s: %s", PQgetvalue(job.tenants, s->tenant, 0),
                PQresultErrorMessage(result));
        if (s->phase == READING_HEAD && status == PGRES_TUPLES_OK)
            s->head = strtol(PQgetvalue(result, 0, 0), NULL, 10);
        PQclear(result);
        if (status == PGRES_PIPELINE_SYNC)
            return true;
    }
    return false;
}

static void wake(slot *s, short happened)
{
    if (s->phase == CONNECTING) {
        poll_connect(s);
        return;
    }
    if (happened & POLLOUT)
        flush(s);
    if (!(happened & (POLLIN | POLLHUP | POLLERR)) || !receive(s))
        return;
    if (s->phase == STEPPING) {
        job.finished++;
        next_tenant(s);
    } else {
        send_step(s);
    }
}

static void run(void)
{
    struct pollfd fds[MAX_SLOTS];
    slot *waiting[MAX_SLOTS];
    for (int i = 0; i < job.slot_count; i++)
        next_tenant(&job.slots[i]);
    for (;;) {
        nfds_t count = 0;
        for (int i = 0; i < job.slot_count; i++) {
            slot *s = &job.slots[i];
            if (s->phase == ENDED)
                continue;
            waiting[count] = s;
            fds[count++] = (struct pollfd){.fd = PQsocket(s->pg), .events = s->events};
        }
        if (count == 0)
            return;
        int ready = poll(fds, count, 60000);
        if (ready <= 0)
            die("poll: %s", ready < 0 ? strerror(errno) : "nothing for a minute");
        for (nfds_t i = 0; i < count; i++)
            if (fds[i].revents)
                wake(waiting[i], fds[i].revents);
    }
}

int main(int argc, char **argv)
{
    double start = now();
    int at = 1;
    for (; at < argc && argv[at][0] == '-'; at++) {
        if (strcmp(argv[at], "--prepared") == 0)
            job.prepared = true;
        else if (strcmp(argv[at], "--databases") == 0)
            job.databases = true;
        else
            die("unknown option %s", argv[at]);
    }
    if (argc - at != 6)
        die("usage: [--prepared] [--databases] CONNINFO LIKE FILE VERSION ID CONNECTIONS");
    if (job.prepared && job.databases)
        die("--prepared pays only where a connection serves many tenants");
    job.conninfo = argv[at];
    job.slot_count = atoi(argv[at + 5]);
    if (job.slot_count < 1 || job.slot_count > MAX_SLOTS)
        die("CONNECTIONS must be from 1 to %d", MAX_SLOTS);
    read_statements(argv[at + 2]);
    make_event(argv[at + 3], argv[at + 4]);

    PGconn *pg = connect_now();
    const char *like[] = {argv[at + 1]};
    job.tenants = query(pg, job.databases ? DATABASES : SCHEMAS, 1, like);
    job.tenant_count = PQntuples(job.tenants);
    run();
    PQclear(query(pg, FLUSH, 0, NULL));
    PQfinish(pg);

    double seconds = now() - start;
    printf("%.4f s, %d tenants, %.0f tenants/s\n", seconds, job.finished, job.finished / seconds);
    PQclear(job.tenants);
    for (int i = 0; i < job.statement_count; i++)
        free(job.statements[i]);
    return job.finished == job.tenant_count ? 0 : 1;
}
