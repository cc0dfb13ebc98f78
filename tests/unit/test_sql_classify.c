/*
 * test_sql_classify.c - tags, classes and objects of statements, table by table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <string.h>

#include "engine/sql/classify.h"

static mb_sql_kind classify(const char *text)
{
    mb_split split;
    mb_sql_kind kind;
    mb_split_init(&split, text, 0, strlen(text));
    if (mb_split_next(&split) != MB_SPLIT_STATEMENT)
        fail_msg("no statement: %s", text);
    mb_sql_classify(text, &split.statement, &kind);
    return kind;
}

typedef struct expectation {
    const char *text;
    const char *tag;
    mb_sql_class class;
} expectation;

static void check_all(const expectation *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mb_sql_kind kind = classify(cases[i].text);
        if (strcmp(kind.tag, cases[i].tag) != 0 || kind.class != cases[i].class)
            fail_msg("%s: %s, %s", cases[i].text, kind.tag, mb_sql_class_name(kind.class));
        assert_true((kind.object.kind != NULL) == (kind.class == MB_SQL_ALONE));
        assert_true((kind.control != NULL) == (kind.class == MB_SQL_CONTROL));
    }
}

#define CHECK_ALL(cases) check_all(cases, sizeof(cases) / sizeof *(cases))

static void test_plain(void **state)
{
    (void)state;
    static const expectation cases[] = {
        {"create table a ()", "CREATE TABLE", MB_SQL_PLAIN},
        {"CREATE UNLOGGED TABLE a ()", "CREATE TABLE", MB_SQL_PLAIN},
        {"create local temporary table a ()", "CREATE TABLE", MB_SQL_PLAIN},
        {"create table a as select 1", "CREATE TABLE AS", MB_SQL_PLAIN},
        {"create table a (b int generated always as (c) stored)", "CREATE TABLE", MB_SQL_PLAIN},
        {"create index on a (b)", "CREATE INDEX", MB_SQL_PLAIN},
        {"create unique index if not exists i on a (b)", "CREATE INDEX", MB_SQL_PLAIN},
        {"create or replace view v as select 1", "CREATE VIEW", MB_SQL_PLAIN},
        {"create or replace temp recursive view v (a) as select 1", "CREATE VIEW", MB_SQL_PLAIN},
        {"create materialized view v as select 1", "CREATE MATERIALIZED VIEW", MB_SQL_PLAIN},
        {"create or replace function f() returns int as 'x'", "CREATE FUNCTION", MB_SQL_PLAIN},
        {"create constraint trigger t after insert on a execute function f()", "CREATE TRIGGER",
         MB_SQL_PLAIN},
        {"create event trigger t on ddl_command_start execute function f()", "CREATE EVENT TRIGGER",
         MB_SQL_PLAIN},
        {"create or replace trusted procedural language l", "CREATE LANGUAGE", MB_SQL_PLAIN},
        {"create default conversion c for 'a' to 'b' from f", "CREATE CONVERSION", MB_SQL_PLAIN},
        {"create text search configuration c (copy = d)", "CREATE TEXT SEARCH CONFIGURATION",
         MB_SQL_PLAIN},
        {"create foreign data wrapper w", "CREATE FOREIGN DATA WRAPPER", MB_SQL_PLAIN},
        {"create foreign table t () server s", "CREATE FOREIGN TABLE", MB_SQL_PLAIN},
        {"create operator class c for type t using u as storage v", "CREATE OPERATOR CLASS",
         MB_SQL_PLAIN},
        {"create operator === (leftarg = a)", "CREATE OPERATOR", MB_SQL_PLAIN},
        {"create user u", "CREATE ROLE", MB_SQL_PLAIN},
        {"create user mapping for u server s", "CREATE USER MAPPING", MB_SQL_PLAIN},
        {"create extension if not exists x", "CREATE EXTENSION", MB_SQL_PLAIN},
        {"create subscription s connection '' publication p with (enabled = false, create_slot = "
         "false)",
         "CREATE SUBSCRIPTION", MB_SQL_PLAIN},
        {"create subscription s connection '' publication p with (connect = 'off')",
         "CREATE SUBSCRIPTION", MB_SQL_PLAIN},
        {"create subscription s connection '' publication p with (create_slot=0)",
         "CREATE SUBSCRIPTION", MB_SQL_PLAIN},
        {"create schema s create index concurrently_ on t (a)", "CREATE SCHEMA", MB_SQL_PLAIN},
        {"alter table a add column concurrently_ int", "ALTER TABLE", MB_SQL_PLAIN},
        {"alter table a detach partition b", "ALTER TABLE", MB_SQL_PLAIN},
        {"alter table a detach partition b finalize", "ALTER TABLE", MB_SQL_PLAIN},
        {"alter table a detach partition \"concurrently\"", "ALTER TABLE", MB_SQL_PLAIN},
        {"alter type t add value 'x'", "ALTER TYPE", MB_SQL_PLAIN},
        {"alter default privileges grant select on tables to x", "ALTER DEFAULT PRIVILEGES",
         MB_SQL_PLAIN},
        {"alter large object 1 owner to x", "ALTER LARGE OBJECT", MB_SQL_PLAIN},
        {"alter group g add user u", "ALTER ROLE", MB_SQL_PLAIN},
        {"alter database d set a = 1", "ALTER DATABASE", MB_SQL_PLAIN},
        {"alter database d rename to tablespace", "ALTER DATABASE", MB_SQL_PLAIN},
        {"alter subscription s set publication p with (refresh = false)", "ALTER SUBSCRIPTION",
         MB_SQL_PLAIN},
        {"alter subscription s set (slot_name = none)", "ALTER SUBSCRIPTION", MB_SQL_PLAIN},
        {"alter subscription s disable", "ALTER SUBSCRIPTION", MB_SQL_PLAIN},
        {"drop table if exists a, b cascade", "DROP TABLE", MB_SQL_PLAIN},
        {"drop index a", "DROP INDEX", MB_SQL_PLAIN},
        {"drop index \"concurrently\"", "DROP INDEX", MB_SQL_PLAIN},
        {"drop owned by x", "DROP OWNED", MB_SQL_PLAIN},
        {"drop procedural language l", "DROP LANGUAGE", MB_SQL_PLAIN},
        {"drop materialized view v", "DROP MATERIALIZED VIEW", MB_SQL_PLAIN},
        {"reindex table a", "REINDEX", MB_SQL_PLAIN},
        {"reindex (verbose) index a", "REINDEX", MB_SQL_PLAIN},
        {"reindex (concurrently false) index a", "REINDEX", MB_SQL_PLAIN},
        {"cluster a using b", "CLUSTER", MB_SQL_PLAIN},
        {"cluster (verbose) a", "CLUSTER", MB_SQL_PLAIN},
        {"refresh materialized view concurrently v", "REFRESH MATERIALIZED VIEW", MB_SQL_PLAIN},
        {"truncate a", "TRUNCATE TABLE", MB_SQL_PLAIN},
        {"insert into a values (1)", "INSERT", MB_SQL_PLAIN},
        {"update a set b = 1", "UPDATE", MB_SQL_PLAIN},
        {"delete from a", "DELETE", MB_SQL_PLAIN},
        {"merge into a using b on true when matched then delete", "MERGE", MB_SQL_PLAIN},
        {"with a as (select 1) insert into b select * from a", "WITH", MB_SQL_PLAIN},
        {"select 1", "SELECT", MB_SQL_PLAIN},
        {"(select 1) union select 2", "SELECT", MB_SQL_PLAIN},
        {"values (1)", "SELECT", MB_SQL_PLAIN},
        {"table a", "SELECT", MB_SQL_PLAIN},
        {"comment on table a is 'set_config'", "COMMENT", MB_SQL_PLAIN},
        {"security label on table a is 'b'", "SECURITY LABEL", MB_SQL_PLAIN},
        {"grant select on a to b", "GRANT", MB_SQL_PLAIN},
        {"revoke a from b", "REVOKE", MB_SQL_PLAIN},
        {"reassign owned by a to b", "REASSIGN OWNED", MB_SQL_PLAIN},
        {"import foreign schema a from server b into c", "IMPORT FOREIGN SCHEMA", MB_SQL_PLAIN},
        {"analyze a", "ANALYZE", MB_SQL_PLAIN},
        {"analyse a", "ANALYZE", MB_SQL_PLAIN},
        {"explain analyze select 1", "EXPLAIN", MB_SQL_PLAIN},
        {"show all", "SHOW", MB_SQL_PLAIN},
        {"checkpoint", "CHECKPOINT", MB_SQL_PLAIN},
        {"create", "CREATE", MB_SQL_PLAIN},
        {"create frobnication f", "CREATE FROBNICATION", MB_SQL_PLAIN},
        {"create averyveryveryveryveryveryveryveryveryverylongword x",
         "CREATE AVERYVERYVERYVERYVERYVERYVERYVERYVERYVER", MB_SQL_PLAIN},
    };
    CHECK_ALL(cases);
}

static void test_session(void **state)
{
    (void)state;
    static const expectation cases[] = {
        {"/* no word */ 'x' y", "", MB_SQL_SESSION},
        {"frobnicate a b", "FROBNICATE", MB_SQL_SESSION}, /* unknown: may do anything */
        {"set search_path = a", "SET", MB_SQL_SESSION},
        {"set local lock_timeout = '1s'", "SET", MB_SQL_SESSION},
        {"set role x", "SET", MB_SQL_SESSION},
        {"set transaction read only", "SET", MB_SQL_SESSION},
        {"set constraints all deferred", "SET CONSTRAINTS", MB_SQL_SESSION},
        {"reset all", "RESET", MB_SQL_SESSION},
        {"lock a in share mode", "LOCK TABLE", MB_SQL_SESSION},
        {"savepoint a", "SAVEPOINT", MB_SQL_SESSION},
        {"release savepoint a", "RELEASE", MB_SQL_SESSION},
        {"rollback to a", "ROLLBACK TO SAVEPOINT", MB_SQL_SESSION},
        {"rollback work to savepoint a", "ROLLBACK TO SAVEPOINT", MB_SQL_SESSION},
        {"rollback transaction to a", "ROLLBACK TO SAVEPOINT", MB_SQL_SESSION},
        {"declare c cursor for select 1", "DECLARE CURSOR", MB_SQL_SESSION},
        {"fetch all from c", "FETCH", MB_SQL_SESSION},
        {"move c", "MOVE", MB_SQL_SESSION},
        {"close c", "CLOSE CURSOR", MB_SQL_SESSION},
        {"do 'x'", "DO", MB_SQL_SESSION},
        {"call p()", "CALL", MB_SQL_SESSION},
        {"prepare p as select 1", "PREPARE", MB_SQL_SESSION},
        {"prepare transaction as select 1", "PREPARE", MB_SQL_SESSION},
        {"prepare transaction (text) as select 1", "PREPARE", MB_SQL_SESSION},
        {"execute p", "EXECUTE", MB_SQL_SESSION},
        {"deallocate all", "DEALLOCATE", MB_SQL_SESSION},
        {"listen a", "LISTEN", MB_SQL_SESSION},
        {"unlisten *", "UNLISTEN", MB_SQL_SESSION},
        {"notify a, 'b'", "NOTIFY", MB_SQL_SESSION},
        {"load 'x'", "LOAD", MB_SQL_SESSION},
        {"discard plans", "DISCARD PLANS", MB_SQL_SESSION},
        {"discard temporary", "DISCARD TEMP", MB_SQL_SESSION},
        {"copy a from 'x'", "COPY", MB_SQL_SESSION},
        {"copy a from stdin", "COPY", MB_SQL_SESSION},
        {"copy a to stdout", "COPY", MB_SQL_SESSION},
        {"select set_config('a', 'b', false)", "SELECT", MB_SQL_SESSION},
        {"with x as (select pg_catalog.set_config('a', 'b', true)) select 1", "WITH",
         MB_SQL_SESSION},
    };
    CHECK_ALL(cases);
}

static void test_alone(void **state)
{
    (void)state;
    static const expectation cases[] = {
        {"create index concurrently on a (b)", "CREATE INDEX", MB_SQL_ALONE},
        {"CREATE/**/UNIQUE INDEX CONCURRENTLY i ON a (b)", "CREATE INDEX", MB_SQL_ALONE},
        {"drop index concurrently a", "DROP INDEX", MB_SQL_ALONE},
        {"reindex index concurrently a", "REINDEX", MB_SQL_ALONE},
        {"reindex (verbose, concurrently) table a", "REINDEX", MB_SQL_ALONE},
        {"reindex (concurrently true) table a", "REINDEX", MB_SQL_ALONE},
        {"reindex database d", "REINDEX", MB_SQL_ALONE},
        {"reindex database", "REINDEX", MB_SQL_ALONE},
        {"reindex system d", "REINDEX", MB_SQL_ALONE},
        {"reindex schema s", "REINDEX", MB_SQL_ALONE},
        {"vacuum", "VACUUM", MB_SQL_ALONE},
        {"vacuum (analyze) a", "VACUUM", MB_SQL_ALONE},
        {"create database d", "CREATE DATABASE", MB_SQL_ALONE},
        {"drop database d", "DROP DATABASE", MB_SQL_ALONE},
        {"alter database d set tablespace t", "ALTER DATABASE", MB_SQL_ALONE},
        {"create tablespace t location 'x'", "CREATE TABLESPACE", MB_SQL_ALONE},
        {"drop tablespace t", "DROP TABLESPACE", MB_SQL_ALONE},
        {"alter system set a = 1", "ALTER SYSTEM", MB_SQL_ALONE},
        {"create subscription s connection '' publication p", "CREATE SUBSCRIPTION", MB_SQL_ALONE},
        {"create subscription s connection '' publication p with (create_slot = true)",
         "CREATE SUBSCRIPTION", MB_SQL_ALONE},
        {"drop subscription s", "DROP SUBSCRIPTION", MB_SQL_ALONE},
        {"alter subscription s refresh publication", "ALTER SUBSCRIPTION", MB_SQL_ALONE},
        {"alter subscription s add publication p", "ALTER SUBSCRIPTION", MB_SQL_ALONE},
        {"alter subscription s set (failover = true)", "ALTER SUBSCRIPTION", MB_SQL_ALONE},
        {"alter table a detach partition b concurrently", "ALTER TABLE", MB_SQL_ALONE},
        {"cluster", "CLUSTER", MB_SQL_ALONE},
        {"cluster verbose", "CLUSTER", MB_SQL_ALONE},
        {"cluster (verbose)", "CLUSTER", MB_SQL_ALONE},
        {"discard all", "DISCARD ALL", MB_SQL_ALONE},
    };
    CHECK_ALL(cases);
}

static void test_control(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *tag;
        const char *control;
    } cases[] = {
        {"begin", "BEGIN", "begin"},
        {"Begin isolation level serializable", "BEGIN", "begin"},
        {"start transaction", "START TRANSACTION", "begin"},
        {"commit", "COMMIT", "commit"},
        {"commit work and chain", "COMMIT", "commit"},
        {"end", "COMMIT", "commit"},
        {"rollback", "ROLLBACK", "rollback"},
        {"rollback transaction and no chain", "ROLLBACK", "rollback"},
        {"abort work", "ROLLBACK", "rollback"},
        {"prepare transaction 'x'", "PREPARE TRANSACTION", "prepare"},
        {"prepare transaction $$x$$", "PREPARE TRANSACTION", "prepare"},
        {"commit prepared 'x'", "COMMIT PREPARED", "commit_prepared"},
        {"rollback prepared 'x'", "ROLLBACK PREPARED", "rollback_prepared"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mb_sql_kind kind = classify(cases[i].text);
        assert_int_equal(kind.class, MB_SQL_CONTROL);
        assert_string_equal(kind.tag, cases[i].tag);
        assert_string_equal(kind.control, cases[i].control);
    }
}

static void test_copy(void **state)
{
    (void)state;
    mb_sql_kind kind = classify("copy a from stdin;\n1\n\\.\n");
    assert_int_equal(kind.class, MB_SQL_COPY);
    assert_string_equal(kind.copy, "in");
    kind = classify("copy a (b) from stdin with (format csv)");
    assert_int_equal(kind.class, MB_SQL_SESSION);
    assert_string_equal(kind.copy, "in");
    kind = classify("copy (select 1 to_) to stdout");
    assert_string_equal(kind.copy, "out");
    assert_null(classify("copy a to '/x'").copy);
    assert_null(classify("copy a from program 'stdin'").copy);
    assert_null(classify("select 1").copy);
}

static void check_object(const char *text, mb_sql_object expected)
{
    mb_sql_object found = classify(text).object;
    if (!found.kind)
        fail_msg("no object: %s", text);
    assert_string_equal(found.kind, expected.kind);
    assert_string_equal(found.schema, expected.schema);
    assert_string_equal(found.name, expected.name);
    assert_string_equal(found.relation_schema, expected.relation_schema);
    assert_string_equal(found.relation, expected.relation);
    assert_string_equal(found.partition_schema, expected.partition_schema);
    assert_string_equal(found.partition, expected.partition);
    assert_int_equal(found.unique, expected.unique);
    assert_int_equal(found.if_not_exists, expected.if_not_exists);
    assert_int_equal(found.if_exists, expected.if_exists);
    assert_int_equal(found.concurrently, expected.concurrently);
}

static void test_objects(void **state)
{
    (void)state;
    check_object(
        "create unique index concurrently if not exists Idx on only S.\"T\" using btree (a)",
        (mb_sql_object){.kind = "index",
                        .name = "idx",
                        .relation_schema = "s",
                        .relation = "T",
                        .unique = true,
                        .if_not_exists = true,
                        .concurrently = true});
    check_object("create index concurrently on t (a)",
                 (mb_sql_object){.kind = "index", .relation = "t", .concurrently = true});
    check_object(
        "create index concurrently if on t (a)", /* a name, not a clause */
        (mb_sql_object){.kind = "index", .name = "if", .relation = "t", .concurrently = true});
    check_object("create index concurrently u&\"d!0061t!+000061\" uescape '!' on db.s.t (a)",
                 (mb_sql_object){.kind = "index",
                                 .name = "data",
                                 .relation_schema = "s",
                                 .relation = "t",
                                 .concurrently = true});
    check_object("drop index concurrently if exists \"A b\".\"I\"\"x\"",
                 (mb_sql_object){.kind = "index",
                                 .schema = "A b",
                                 .name = "I\"x",
                                 .if_exists = true,
                                 .concurrently = true});
    check_object(
        "reindex index concurrently s . i",
        (mb_sql_object){.kind = "index", .schema = "s", .name = "i", .concurrently = true});
    check_object("reindex (concurrently) table t",
                 (mb_sql_object){.kind = "table", .name = "t", .concurrently = true});
    check_object("reindex schema concurrently s",
                 (mb_sql_object){.kind = "schema", .name = "s", .concurrently = true});
    check_object("reindex database", (mb_sql_object){.kind = "database"});
    check_object("alter table if exists only a.b * detach partition c.d concurrently",
                 (mb_sql_object){.kind = "partition",
                                 .relation_schema = "a",
                                 .relation = "b",
                                 .partition_schema = "c",
                                 .partition = "d",
                                 .if_exists = true,
                                 .concurrently = true});
    check_object("create database \"D\" owner x", (mb_sql_object){.kind = "database", .name = "D"});
    check_object("drop database if exists d with (force)",
                 (mb_sql_object){.kind = "database", .name = "d", .if_exists = true});
    check_object("drop database if", (mb_sql_object){.kind = "database", .name = "if"});
    check_object("alter database d set tablespace x",
                 (mb_sql_object){.kind = "database", .name = "d"});
    check_object("create tablespace t location ''",
                 (mb_sql_object){.kind = "tablespace", .name = "t"});
    check_object("drop tablespace if exists t",
                 (mb_sql_object){.kind = "tablespace", .name = "t", .if_exists = true});
    check_object("create subscription s connection '' publication p",
                 (mb_sql_object){.kind = "subscription", .name = "s"});
    check_object("drop subscription if exists s",
                 (mb_sql_object){.kind = "subscription", .name = "s", .if_exists = true});
    check_object("vacuum full verbose s.t (a, b), u",
                 (mb_sql_object){.kind = "table", .schema = "s", .name = "t"});
    check_object("vacuum (full, parallel 2) t", (mb_sql_object){.kind = "table", .name = "t"});
    check_object("vacuum", (mb_sql_object){.kind = "database"});
    check_object("cluster", (mb_sql_object){.kind = "database"});
    check_object("alter system set work_mem = 1",
                 (mb_sql_object){.kind = "system", .name = "work_mem"});
    check_object("alter system reset a.b",
                 (mb_sql_object){.kind = "system", .schema = "a", .name = "b"});
    check_object("discard all", (mb_sql_object){.kind = "session"});
    /* Cut short: what is there, and no more. */
    check_object("create index concurrently",
                 (mb_sql_object){.kind = "index", .concurrently = true});
    check_object("drop database a.", (mb_sql_object){.kind = "database", .schema = "a"});
}

static void test_class_names(void **state)
{
    (void)state;
    assert_string_equal(mb_sql_class_name(MB_SQL_PLAIN), "plain");
    assert_string_equal(mb_sql_class_name(MB_SQL_ALONE), "alone");
    assert_string_equal(mb_sql_class_name(MB_SQL_CONTROL), "control");
    assert_string_equal(mb_sql_class_name(MB_SQL_COPY), "copy");
    assert_string_equal(mb_sql_class_name(MB_SQL_SESSION), "session");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),       cmocka_unit_test(test_session),
        cmocka_unit_test(test_alone),       cmocka_unit_test(test_control),
        cmocka_unit_test(test_copy),        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_class_names),
    };
    return cmocka_run_group_tests_name("sql: classify", tests, NULL, NULL);
}
