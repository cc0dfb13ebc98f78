-- Statement facts: what a rule sees of SQL. One line of a table is one statement and what must be known of it.
local facts = require "moonbird.policy.facts"
local registry = require "moonbird.migration.registry"
local sql = require "moonbird.core.sql"

local function all(text, options)
  local statements, problem = facts.of_text(text, options)
  assert.is_nil(problem)
  return statements
end

--- The facts of the last statement.
local function last(text)
  local statements = all(text)
  return statements[#statements]
end

--- Compares only the keys that are asked for, deep; false stands for "not set or false".
local function covers(expected, got, path)
  for key, value in pairs(expected) do
    local own = got[key]
    local where = path .. "." .. tostring(key)
    if type(value) == "table" then
      assert.is_table(own, where)
      covers(value, own, where)
      if #value > 0 or next(value) == nil then
        assert.equal(#value, #own, "length of " .. where)
      end
    elseif value == false then
      assert.is_true(own == false or own == nil, where .. " is " .. tostring(own))
    else
      assert.equal(value, own, where)
    end
  end
end

local function check(cases)
  for _, case in ipairs(cases) do
    local st = last(case[1])
    assert.is_true(st.parsed, case[1] .. ": " .. tostring(st.problem))
    covers(case[2], st, case[1])
  end
end

local function migration(text, kind)
  local entry = {
    version = 20250101000000, version_text = "20250101000000", name = "case", id = "20250101000000_case",
    kind = kind or "sql", file = "migrations/20250101000000_case." .. (kind or "sql"), text = text,
  }
  local loaded, problems = registry.load(entry)
  assert(loaded, problems and problems[1] and problems[1].message)
  return loaded
end

describe("facts: verbs, kinds and names", function()
  it("of CREATE", function()
    check {
      { "create table A.Users ()", { verb = "create", kind = "table", schema = "a", name = "users", new = true,
        relation = { schema = "a", name = "users" }, tag = "CREATE TABLE", class = "plain" } },
      { "create table \"A\".\"Users\" ()", { schema = "A", name = "Users" } },
      { "create table if not exists t ()", { if_not_exists = true } },
      { "create temp table t ()", { schema = "pg_temp", temporary = true, schemas = {} } },
      { "create unlogged table t ()", { unlogged = true } },
      { "create table p partition of q for values in (1)", { partition_of = { name = "q" }, default_partition = false } },
      { "create table p partition of s.q default", { partition_of = { schema = "s", name = "q" }, default_partition = true } },
      { "create table p (a int) partition by range (a)", { partitioned = true, partition_of = false } },
      { "create table c (like s.p including all) inherits (a, b)", { likes = { { schema = "s", name = "p" } },
        inherits = { { name = "a" }, { name = "b" } }, schemas = { "s" } } },
      { "create foreign table f (a int) server s", { kind = "foreign_table", name = "f", server = "s",
        relation = { name = "f" } } },
      { "create table t as select * from s.u", { verb = "create", kind = "table", name = "t", from_query = true,
        writes_data = false, changes_schema = true, new = true,
        relations = { { name = "t", access = "ddl" }, { schema = "s", name = "u", access = "read" } } } },
      { "select * into t from u", { verb = "create", kind = "table", name = "t", select_into = true, changes_schema = true } },
      { "select 1 as a into t union select 2", { verb = "create", name = "t" } },
      { "create materialized view m as select 1 with no data", { kind = "materialized_view", name = "m", with_no_data = true } },
      { "create or replace view s.v (x) as select a from t", { kind = "view", replace = true, columns = { "x" }, new = false } },
      { "create unique index concurrently if not exists i on s.t (a, lower(b), c desc) where d",
        { kind = "index", schema = "s", name = "i", relation = { schema = "s", name = "t" }, columns = { "a", "c" },
          has_expressions = true, partial = true, unique = true, concurrently = true, if_not_exists = true,
          class = "alone", transactional = false, method = "btree" } },
      { "create index on t (a)", { kind = "index", name = false, concurrently = false, unique = false, transactional = true } },
      { "create index i on only t (a)", { only = true } },
      { "create sequence s.q", { kind = "sequence", schema = "s", name = "q" } },
      { "create function s.f(a int, out b text) returns text language SQL as 'select 1'", { kind = "function",
        schema = "s", name = "f", signature = { "integer" },
        function_ = { language = "sql", security_definer = false, body = "select 1",
          arguments = { { name = "a", mode = "in" }, { name = "b", mode = "out", type = { text = "text" } } } } } },
      { "create procedure p() language plpgsql as $$ begin end $$", { kind = "procedure",
        function_ = { language = "plpgsql" } } },
      { "create aggregate a (int) (sfunc = x, stype = int)", { kind = "aggregate", name = "a" } },
      { "create type s.t as (a int, b text)", { kind = "type", schema = "s", name = "t",
        actions = { { kind = "add_column", column = "a" }, { column = "b" } } } },
      { "create type t as enum ('a', 'b')", { kind = "enum", name = "t", values = { "a", "b" } } },
      { "create type t as range (subtype = int)", { kind = "type", name = "t" } },
      { "create domain s.d as text not null check (value <> '')", { kind = "domain", schema = "s", name = "d",
        type = { name = "text" }, actions = { { constraint = { kind = "not_null" } },
          { constraint = { kind = "check", expression = "value <> ''" } } } } },
      { "create schema if not exists s", { kind = "schema", name = "s", schemas = { "s" }, if_not_exists = true } },
      { "create schema authorization bob", { kind = "schema", name = "bob" } },
      { "create extension if not exists citext schema s version '1.6' cascade", { kind = "extension", name = "citext",
        into_schema = "s", version = "1.6", cascade = true, schemas = { "s" } } },
      { "create trigger g after insert on s.t for each row execute function q.f()", { kind = "trigger", name = "g",
        relation = { schema = "s", name = "t" }, schemas = { "q", "s" } } },
      { "create policy p on t using (true)", { kind = "policy", name = "p", relation = { name = "t" } } },
      { "create rule r as on insert to t do instead nothing", { kind = "rule", name = "r", relation = { name = "t" } } },
      { "create role r", { kind = "role", name = "r" } },
      { "create database d", { kind = "database", name = "d", class = "alone", transactional = false } },
      { "create tablespace t location '/x'", { kind = "tablespace", name = "t", transactional = false } },
      { "create subscription s connection 'host=h password=x' publication p", { kind = "subscription", name = "s",
        connection = "host=h password=x" } },
      { "create publication p for table s.t", { kind = "publication", name = "p", schemas = { "s" } } },
      { "create event trigger e on ddl_command_end execute function f()", { kind = "event_trigger", name = "e" } },
      { "create statistics s on a, b from t", { kind = "statistics", name = "s", relation = { name = "t" } } },
      { "create server s foreign data wrapper w", { kind = "server", name = "s" } },
      { "create foreign data wrapper w", { kind = "foreign_data_wrapper", name = "w" } },
      { "create user mapping for bob server s options (password 'x')", { kind = "user_mapping", name = "bob", server = "s" } },
      { "create cast (int as text) without function", { kind = "cast", name = "integer as text" } },
      { "create operator s.+ (leftarg = int, rightarg = int, function = f)", { kind = "operator", schema = "s", name = "+" } },
      { "create collation s.c (locale = 'C')", { kind = "collation", schema = "s", name = "c" } },
      { "create operator class c for type int using btree as operator 1 <", { kind = "operator_class", name = "c" } },
      { "create access method a type index handler h", { kind = "access_method", name = "a" } },
      { "import foreign schema a from server s into b", { verb = "create", kind = "foreign_table", schemas = { "b" } } },
    }
  end)

  it("of CREATE SCHEMA with elements", function()
    local st = last("create schema s create table t (a int references o.u) create view v as select 1 from t")
    covers({
      kind = "schema", name = "s", schemas = { "o", "s" },
      elements = {
        { verb = "create", kind = "table", schema = "s", name = "t", new = true, relation = { schema = "s", name = "t" } },
        { kind = "view", schema = "s", name = "v", new = true },
      },
    }, st, "st")
    assert.equal("drops table t2", last("create schema s create table t (); drop table t2").breaking)
    assert.is_nil(last("create schema s create table t (); drop table s.t").breaking)
  end)

  it("of DROP", function()
    check {
      { "drop table if exists s.a, b cascade", { verb = "drop", kind = "table", schema = "s", name = "a", if_exists = true,
        cascade = true, objects = { { schema = "s", name = "a" }, { name = "b" } }, schemas = { "s" },
        relations = { { schema = "s", name = "a", access = "ddl" }, { name = "b", access = "ddl" } } } },
      { "drop view v", { kind = "view", name = "v", relation = { name = "v" } } },
      { "drop materialized view v", { kind = "materialized_view" } },
      { "drop index concurrently s.i", { kind = "index", schema = "s", name = "i", concurrently = true, relation = false,
        relations = {}, transactional = false } },
      { "drop function s.f(int, text), g", { kind = "function", schema = "s", name = "f", schemas = { "s" },
        objects = { { schema = "s", name = "f", signature = { "integer", "text" } }, { name = "g" } } } },
      { "drop procedure p", { kind = "procedure" } }, { "drop aggregate a(int)", { kind = "aggregate" } },
      { "drop trigger g on s.t", { kind = "trigger", name = "g", schema = "s", relation = { schema = "s", name = "t" },
        relations = { { schema = "s", name = "t", access = "ddl" } } } },
      { "drop policy p on t", { kind = "policy", name = "p", relation = { name = "t" } } },
      { "drop rule r on t", { kind = "rule", name = "r", relation = { name = "t" } } },
      { "drop type s.a, b", { kind = "type", schema = "s", name = "a", objects = { { name = "a" }, { name = "b" } } } },
      { "drop domain d", { kind = "domain", name = "d" } },
      { "drop schema a, b", { kind = "schema", name = "a", schemas = { "a", "b" } } },
      { "drop sequence s", { kind = "sequence", name = "s" } }, { "drop extension e", { kind = "extension", name = "e" } },
      { "drop role a, b", { kind = "role", objects = { { name = "a" }, { name = "b" } } } },
      { "drop database if exists d", { kind = "database", name = "d", if_exists = true } },
      { "drop tablespace t", { kind = "tablespace" } }, { "drop subscription s", { kind = "subscription", name = "s" } },
      { "drop publication p", { kind = "publication" } }, { "drop event trigger e", { kind = "event_trigger" } },
      { "drop user mapping for bob server s", { kind = "user_mapping", name = "bob" } },
      { "drop owned by bob cascade", { kind = "owned", name = "bob", cascade = true } },
      { "drop operator class s.c using btree", { kind = "operator_class", schema = "s", name = "c" } },
      { "drop cast (int as text)", { kind = "cast" } }, { "drop foreign table f", { kind = "foreign_table", name = "f" } },
    }
  end)

  it("of ALTER … RENAME", function()
    check {
      { "alter table s.t rename to u", { verb = "rename", kind = "table", schema = "s", name = "t",
        actions = { { kind = "rename", to = "u" } } } },
      { "alter table t rename column a to b", { verb = "rename", kind = "column", name = "a", relation = { name = "t" },
        relation_kind = "table", actions = { { kind = "rename_column", column = "a", to = "b" } } } },
      { "alter view v rename a to b", { kind = "column", relation_kind = "view" } },
      { "alter table t rename constraint a to b", { kind = "constraint", name = "a", relation = { name = "t" },
        actions = { { kind = "rename_constraint", name = "a", to = "b" } } } },
      { "alter domain d rename constraint a to b", { kind = "domain_constraint", name = "a", domain = { name = "d" } } },
      { "alter index s.i rename to j", { kind = "index", schema = "s", name = "i", relations = {}, relation = false } },
      { "alter type t rename attribute a to b", { kind = "attribute", relation = { name = "t" }, relations = {},
        actions = { { kind = "rename_column", column = "a" } } } },
      { "alter schema a rename to b", { kind = "schema", name = "a", schemas = { "a", "b" } } },
      { "alter role a rename to b", { kind = "role", name = "a" } }, { "alter database a rename to b", { kind = "database" } },
      { "alter function f(int) rename to g", { kind = "function", name = "f" } },
      { "alter policy p on t rename to q", { kind = "policy", name = "p", relation = { name = "t" } } },
      { "alter trigger g on t rename to h", { kind = "trigger", name = "g", relation = { name = "t" } } },
      { "alter materialized view m rename to n", { kind = "materialized_view", name = "m" } },
    }
  end)

  it("of ALTER … SET SCHEMA, OWNER TO, DEPENDS", function()
    check {
      { "alter table a.t set schema b", { verb = "alter", kind = "table", schemas = { "a", "b" },
        actions = { { kind = "set_schema", to = "b" } } } },
      { "alter function f(int) set schema b", { kind = "function", name = "f", actions = { { kind = "set_schema" } } } },
      { "alter table t owner to bob", { kind = "table", actions = { { kind = "owner", to = "bob" } } } },
      { "alter function f owner to current_user", { kind = "function", actions = { { kind = "owner", to = "current_user" } } } },
      { "alter index i depends on extension e", { kind = "index", actions = { { kind = "other", subtype = "depends",
        to = "e" } } } },
      { "reassign owned by a to b", { verb = "alter", kind = "owned", name = "a", actions = { { kind = "owner", to = "b" } } } },
    }
  end)

  it("of the other ALTERs", function()
    check {
      { "alter type t add value if not exists 'b' after 'a'", { verb = "alter", kind = "enum", name = "t",
        actions = { { kind = "add_value", value = "b", neighbour = "a", after = true, if_not_exists = true } } } },
      { "alter type t rename value 'a' to 'b'", { kind = "enum", actions = { { kind = "rename_value", value = "a",
        to = "b" } } } },
      { "alter type t add attribute a int, drop attribute b", { kind = "type", relations = {},
        actions = { { kind = "add_column", column = "a" }, { kind = "drop_column", column = "b" } } } },
      { "alter domain d add constraint c check (value > 0) not valid", { kind = "domain", name = "d",
        actions = { { kind = "add_constraint", constraint = { name = "c", kind = "check", not_valid = true } } } } },
      { "alter domain d drop not null", { actions = { { kind = "drop_not_null" } } } },
      { "alter view v alter a set default 1", { kind = "view", relation = { name = "v" },
        actions = { { kind = "set_default" } } } },
      { "alter index i set (fillfactor = 10)", { kind = "index", name = "i",
        actions = { { kind = "set_options", options = { fillfactor = 10 } } } } },
      { "alter index p attach partition c", { kind = "index", actions = { { kind = "attach_partition",
        partition = { name = "c" } } } } },
      { "alter sequence s restart with 3", { kind = "sequence", name = "s" } },
      { "alter function f(int) security definer set search_path = a, pg_temp", { kind = "function", schemas = { "a" },
        function_ = { security_definer = true, settings = { search_path = "a, pg_temp" }, search_path = { "a", "pg_temp" } } } },
      { "alter function f reset search_path", { function_ = { reset = { "search_path" } } } },
      { "alter policy p on t using (true)", { kind = "policy", relation = { name = "t" } } },
      { "alter system set work_mem = '1GB'", { kind = "system", setting = { name = "work_mem", value = "1GB" },
        transactional = false } },
      { "alter database d set tablespace x", { kind = "database", actions = { { kind = "set_tablespace", to = "x" } } } },
      { "alter database d set work_mem = '1GB'", { kind = "database", setting = { name = "work_mem" } } },
      { "alter extension e update", { kind = "extension", name = "e" } },
      { "alter publication p add table t", { kind = "publication", name = "p" } },
      { "alter subscription s connection 'x'", { kind = "subscription", connection = "x" } },
      { "alter event trigger e disable", { kind = "event_trigger" } },
      { "alter table all in tablespace a set tablespace b", { kind = "table", all_in_tablespace = "a",
        actions = { { kind = "set_tablespace", to = "b" } } } },
    }
  end)

  it("of DML and queries", function()
    check {
      { "insert into s.t (a, b) values (1, 2)", { verb = "insert", kind = "table", schema = "s", name = "t",
        columns = { "a", "b" }, where = false, writes_data = true, changes_schema = false, from_query = false,
        relations = { { schema = "s", name = "t", access = "write" } } } },
      { "insert into t select * from u on conflict do nothing", { from_query = true, conflict = "nothing" } },
      { "insert into t values (1) on conflict (a) do update set b = 2", { conflict = "update", columns = {} } },
      { "update only t set a = 1, (b, c) = (2, 3) from u where t.id = u.id", { verb = "update", only = true,
        columns = { "a", "b", "c" }, where = "some", relations = { { name = "t", access = "write" }, { name = "u",
          access = "read" } } } },
      { "delete from t using u where t.a = u.a", { verb = "delete", where = "some" } },
      { "merge into t using u on t.a = u.a when matched then delete", { verb = "merge", name = "t", writes_data = true,
        where = false } },
      { "select * from s.t", { verb = "select", name = "t", writes_data = false, changes_schema = false } },
      { "table t", { verb = "select", name = "t" } },
      { "truncate only a, s.b cascade", { verb = "truncate", name = "a", only = true, cascade = true, writes_data = true,
        objects = { { name = "a" }, { schema = "s", name = "b" } }, schemas = { "s" } } },
      { "copy s.t (a) to '/x'", { verb = "copy", copy = "to", columns = { "a" }, server_file = "/x", writes_data = false } },
      { "copy (select * from t) to program 'sh'", { verb = "copy", program = "sh", name = false, kind = false,
        relations = { { name = "t", access = "read" } } } },
      -- in the order in which each is named first, however the tree is walked
      { "select (select 1 from c), 1 from b join a on exists (select from c) where exists (select from a, b) "
        .. "group by (select 1 from a) having exists (select from b, c) order by (select 1 from a, b)",
        { relations = { { name = "c", access = "read" }, { name = "b", access = "read" },
          { name = "a", access = "read" } } } },
      { "lock table a, b in exclusive mode", { verb = "lock", name = "a", objects = { { name = "a" }, { name = "b" } } } },
      { "notify c, 'x'", { verb = "notify", name = "c" } },
      { "call s.p(1)", { verb = "call", schema = "s", name = "p", opaque = true } },
      { "do $$ begin perform 1; end $$", { verb = "do", opaque = true, function_ = { language = "plpgsql",
        body = " begin perform 1; end " } } },
      { "execute p", { verb = "other", prepared = "p", opaque = true } },
      { "vacuum (full, analyze) t", { verb = "vacuum", full = true, name = "t", transactional = false } },
      { "vacuum", { verb = "vacuum", full = false, kind = false } }, { "analyze t (a)", { verb = "analyze", columns = { "a" } } },
      { "reindex (verbose) table concurrently t", { verb = "reindex", kind = "table", name = "t", concurrently = true } },
      { "reindex index i", { kind = "index", name = "i", concurrently = false } }, { "reindex schema s", { kind = "schema",
        schemas = { "s" } } },
      { "cluster t using i", { verb = "cluster", name = "t", index_name = "i" } },
      { "refresh materialized view concurrently m", { verb = "refresh", kind = "materialized_view", name = "m",
        concurrently = true } },
      { "begin", { verb = "transaction", kind = "begin", class = "control" } }, { "rollback", { kind = "rollback" } },
      { "savepoint x", { verb = "transaction", kind = "savepoint", name = "x" } },
      { "set local lock_timeout = '2s'", { verb = "set", name = "lock_timeout", setting = { value = "2s", is_local = true } } },
      { "set search_path to \"My\", b, \"$user\", pg_temp", { verb = "set", schemas = { "My", "b" } } },
      { "reset all", { verb = "reset", name = "all" } }, { "reset work_mem", { verb = "reset", name = "work_mem" } },
      { "show work_mem", { verb = "show", name = "work_mem" } },
      { "discard all", { verb = "other" } }, { "listen c", { verb = "other" } },
    }
  end)

  it("of COMMENT and SECURITY LABEL", function()
    check {
      { "comment on table s.t is 'x'", { verb = "comment", kind = "table", schema = "s", name = "t", comment = "x",
        relation = { schema = "s", name = "t" }, relations = { { schema = "s", name = "t", access = "ddl" } } } },
      { "comment on column s.t.c is 'x'", { kind = "column", schema = "s", name = "c", relation = { schema = "s",
        name = "t" } } },
      { "comment on constraint c on t is null", { kind = "constraint", name = "c", comment = false } },
      { "comment on function s.f(int) is 'x'", { kind = "function", schema = "s", name = "f" } },
      { "comment on schema s is 'x'", { kind = "schema", name = "s", schemas = { "s" } } },
      { "security label for p on role r is 'x'", { verb = "security_label", kind = "role", name = "r" } },
    }
  end)

  it("gives what libpg_query can't read by its tag", function()
    local st = last("create table t (a int, b int generated always as (a) virtual)")
    assert.is_false(st.parsed)
    assert.matches("syntax error", st.problem)
    assert.equal("create", st.verb)
    assert.equal("table", st.kind)
    assert.is_nil(st.tree)
    assert.is_true(st.changes_schema)
    assert.same({}, st.relations)
    st = last("repack (concurrently) t")
    assert.is_false(st.parsed)
    assert.equal("other", st.verb)
    st = last("merge into t using u on true when not matched by source then delete")
    assert.is_false(st.parsed)
    assert.equal("merge", st.verb)
    assert.is_true(st.writes_data)
    assert.is_false((last("create user x with bogus_option").parsed))
    assert.equal("role", last("create user x with bogus_option").kind)
  end)
end)

describe("facts: actions", function()
  local function actions(text)
    return last(text).actions
  end

  it("of CREATE TABLE: constraints on columns become constraints of the table", function()
    covers({
      { kind = "add_column", column = "id", identity = "always", not_null = true, type = { name = "int8", text = "bigint" } },
      { kind = "add_constraint", column = "id", inline = true, constraint = { kind = "primary_key", columns = { "id" } } },
      { kind = "add_column", column = "n", not_null = true, collate = "C", type = { text = "varchar(20)", args = { 20 } },
        default = { text = "'a, (b'", constant = true, volatile = false } },
      { kind = "add_constraint", constraint = { kind = "check", name = "ck", expression = "n <> ')'", not_valid = false } },
      { kind = "add_constraint", constraint = { kind = "foreign_key", columns = { "n" }, references = { schema = "s",
        name = "o" },
        reference_columns = { "id" }, on_delete = "cascade" } },
      { kind = "add_column", column = "g", generated = "stored", expression = "1 + (2)" },
      { kind = "add_constraint", constraint = { kind = "unique", name = "u", columns = { "a", "b" } } },
      { kind = "add_constraint", constraint = { kind = "foreign_key", columns = { "a", "b" }, reference_columns = { "c",
        "d" } } },
      { kind = "add_constraint", constraint = { kind = "exclusion", columns = { "r" } } },
    }, actions [[create table t (id bigint generated always as identity primary key,
      n varchar(20) collate "C" default 'a, (b' not null constraint ck check (n <> ')') references s.o (id) on delete cascade,
      g int generated always as (1 + (2)) stored, constraint u unique (a, b),
      foreign key (a, b) references p (c, d), exclude using gist (r with &&))]], "actions")
  end)

  it("of each subcommand of ALTER TABLE", function()
    for text, expected in pairs {
      ["add column if not exists a int[]"] = { kind = "add_column", column = "a", if_not_exists = true,
        type = { name = "int4", array = true, text = "integer[]" } },
      ["add a serial"] = { kind = "add_column", serial = true, not_null = true },
      ["drop column if exists a cascade"] = { kind = "drop_column", column = "a", if_exists = true, cascade = true },
      ["alter a type numeric(10,2) using b::text || ','"] = { kind = "alter_type", column = "a", using = "b::text || ','",
        using_cast = false, type = { name = "numeric", args = { 10, 2 }, text = "numeric(10,2)" } },
      ["alter a type text collate \"C\" using a::text"] = { using = "a::text", using_cast = true, collate = "C" },
      ["alter a set default (1 + 2)"] = { kind = "set_default", column = "a", default = { text = "(1 + 2)" } },
      ["alter a drop default"] = { kind = "drop_default", column = "a" },
      ["alter a set not null"] = { kind = "set_not_null", column = "a" },
      ["alter a drop not null"] = { kind = "drop_not_null", column = "a" },
      ["add constraint c check (a > 0) not valid"] = { kind = "add_constraint",
        constraint = { name = "c", kind = "check", not_valid = true, expression = "a > 0" } },
      ["add constraint c foreign key (a) references s.u not valid"] = {
        constraint = { kind = "foreign_key", columns = { "a" }, references = { schema = "s", name = "u" }, not_valid = true } },
      ["add constraint c unique using index i"] = { constraint = { kind = "unique", using_index = "i" } },
      ["add primary key (a)"] = { constraint = { kind = "primary_key", columns = { "a" }, name = false } },
      ["drop constraint c"] = { kind = "drop_constraint", name = "c" },
      ["validate constraint c"] = { kind = "validate_constraint", name = "c" },
      ["attach partition s.p for values from (1) to (2)"] = { kind = "attach_partition", partition = { schema = "s",
        name = "p" } },
      ["attach partition p default"] = { default = true },
      ["detach partition p concurrently"] = { kind = "detach_partition", concurrently = true },
      ["detach partition p finalize"] = { kind = "detach_partition", finalize = true },
      ["owner to bob"] = { kind = "owner", to = "bob" }, ["set tablespace x"] = { kind = "set_tablespace", to = "x" },
      ["set logged"] = { kind = "set_logged" }, ["set unlogged"] = { kind = "set_unlogged" },
      ["alter a set storage external"] = { kind = "set_storage", column = "a", to = "external" },
      ["set (fillfactor = 70)"] = { kind = "set_options", options = { fillfactor = 70 } },
      ["reset (fillfactor)"] = { kind = "set_options", reset = true },
      ["alter a set (n_distinct = 5)"] = { kind = "set_options", column = "a" },
      ["replica identity full"] = { kind = "replica_identity", to = "full" },
      ["replica identity using index i"] = { to = "index", using_index = "i" },
      ["enable trigger g"] = { kind = "enable_trigger", name = "g" }, ["disable trigger all"] = { kind = "disable_trigger" },
      ["enable row level security"] = { kind = "enable_rls" }, ["disable row level security"] = { kind = "disable_rls" },
      ["force row level security"] = { kind = "force_rls" },
      ["inherit p"] = { kind = "inherit", parent = { name = "p" } }, ["no inherit p"] = { kind = "no_inherit" },
      ["alter a set statistics 100"] = { kind = "set_statistics", column = "a", to = 100 },
      ["alter a add generated by default as identity"] = { kind = "add_identity", identity = "by default" },
      ["alter a drop identity if exists"] = { kind = "drop_identity", if_exists = true },
      ["alter a set generated always"] = { kind = "set_generated", identity = "always" },
      ["alter a drop expression"] = { kind = "drop_expression" }, ["cluster on i"] = { kind = "cluster_on", name = "i" },
      ["set access method heap"] = { kind = "set_access_method", to = "heap" },
      ["set without cluster"] = { kind = "other", subtype = "AT_DropCluster" },
    } do
      local list = actions("alter table t " .. text)
      assert.equal(1, #list, text)
      covers(expected, list[1], text)
    end
  end)

  it("of several subcommands, with their lines", function()
    local st = last("alter table if exists only t\n  add column a int,\n  drop column \"B\",\n\n  alter b type text,\n"
      .. "  drop constraint c")
    covers({ if_exists = true, only = true, line = 1, last_line = 6,
      actions = { { line = 2 }, { kind = "drop_column", column = "B", line = 3 }, { line = 5 }, { kind = "drop_constraint",
        line = 6 } },
    }, st, "st")
  end)

  it("names types as they are, however written", function()
    for written, expected in pairs {
      int = "integer", int4 = "integer", integer = "integer", bigint = "bigint", ["timestamp with time zone"] = "timestamptz",
      ["character varying(5)"] = "varchar(5)", char = "char(1)", ["\"char\""] = "\"char\"",
        ["interval day to second(3)"] = "interval(3)",
      ["s.t[]"] = "s.t[]", boolean = "boolean", ["double precision"] = "double precision", bigserial = "bigserial",
      ["geometry(Point, 4326)"] = "geometry(point,4326)",
    } do
      assert.equal(expected, actions("create table t (a " .. written .. ")")[1].type.text, written)
    end
    assert.equal("s", actions("create table t (a s.x)")[1].type.schema)
    assert.is_nil(actions("create table t (a int)")[1].type.schema)
  end)

  it("knows defaults that are volatile, steady, constant or unknown", function()
    local function default(text)
      return last("alter table t add column a text default " .. text).actions[1].default
    end
    for text, expected in pairs {
      ["'x'"] = { false, true }, ["-1"] = { false, true }, ["'{}'::jsonb"] = { false, true }, ["array[]::text[]"] = { false,
        true },
      ["null"] = { false, true }, ["now()"] = { false, false }, ["current_timestamp"] = { false, false },
      ["now() + interval '1 day'"] = { false, false }, ["lower('X')"] = { false, false }, ["random()"] = { true, false },
      ["gen_random_uuid()"] = { true, false }, ["clock_timestamp()"] = { true, false }, ["nextval('s')"] = { true, false },
      ["md5(random()::text)"] = { true, false }, ["public.uuid_generate_v4()"] = { true, false },
      ["my_function()"] = { nil, false }, ["app.now()"] = { nil, false }, ["coalesce(my(), random()::text)"] = { true, false },
    } do
      local found = default(text)
      assert.equal(expected[1], found.volatile, text)
      assert.equal(expected[2], found.constant, text)
      assert.equal(text, found.text)
    end
    assert.is_true(default("null").null)
  end)
end)

describe("facts: WHERE and writes", function()
  it("tells no, a useless and a real WHERE", function()
    for where, expected in pairs {
      [""] = "none", [" where true"] = "always", [" where 1=1"] = "always", [" where 1 = 1 and true"] = "always",
      [" where a = 1 or true"] = "always", [" where not false"] = "always", [" where id = id"] = "always",
      [" where 1 <> 2"] = "always", [" where 't'::bool"] = "always",
      [" where a = 1"] = "some", [" where false"] = "some", [" where true and a = 1"] = "some", [" where 1 = 2"] = "some",
      [" where id is not null"] = "some", [" where current of c"] = "some",
    } do
      assert.equal(expected, last("delete from t" .. where).where, where)
      assert.equal(expected, last("update t set a = 1" .. where).where, where)
    end
  end)

  it("sees what a WITH writes", function()
    local st = last("with d as (delete from s.old returning *), n as (select * from d) insert into new select * from n")
    covers({
      verb = "insert", name = "new", tag = "WITH", writes_data = true, destroys = "deletes rows of s.old",
      writes = { { verb = "delete", schema = "s", name = "old", where = "none", nested = true, new = false },
        { verb = "insert", name = "new", nested = false } },
      relations = { { name = "old", access = "write" }, { name = "new", access = "write" } },
    }, st, "st")
    st = last("with u as (update t set a = 1 returning *) select * from u")
    assert.equal("select", st.verb)
    assert.is_true(st.writes_data)
    assert.equal("none", st.writes[1].where)
    assert.is_true(last("copy (with d as (delete from t returning *) select * from d) to '/x'").writes_data)
    covers({ writes = { { verb = "copy", name = "t" } }, writes_data = true, copy = "from" }, last("copy t from '/x'"), "copy")
  end)

  it("knows a name of WITH from a table", function()
    local function relations(text)
      local out = {}
      for _, relation in ipairs(last(text).relations) do
        out[#out + 1] = (relation.schema and relation.schema .. "." or "") .. relation.name
      end
      return table.concat(out, " ")
    end
    assert.equal("t", relations "with u as (select * from t) select * from u")
    assert.equal("users", relations "with users as (select * from users) select * from users")
    assert.equal("", relations "with recursive r as (select 1 union all select * from r) select * from r")
    assert.equal("s.u", relations "with u as (select 1) select * from s.u")
    assert.equal("t u", relations "select * from t where exists (with x as (select * from u) select * from x)")
    assert.equal("u x", relations "with x as (select * from u) delete from x") -- a target is never a WITH
    assert.equal("a b c", relations "select * from a join (select * from b) q on true where x in (select y from c)")
    assert.equal("a.s b.t", relations "select nextval('a.s'), 'b.t'::regclass")
  end)

  it("takes EXPLAIN ANALYZE for what it runs, EXPLAIN for nothing", function()
    covers({ verb = "explain", analyze = true, inner_verb = "update", where = "none", writes_data = true, name = "t" },
      last("explain analyze update t set a = 1"), "analyze")
    covers({ verb = "explain", analyze = false, where = false, writes_data = false, destroys = false },
      last("explain delete from t"), "explain")
    assert.is_false(last("explain (analyze off) delete from t").writes_data)
    assert.equal("deletes rows of t", last("explain (analyze, verbose) delete from t").destroys)
    assert.is_true(last("explain analyze create table x as select 1").changes_schema)
  end)

  it("takes PREPARE for what EXECUTE will run, and what a function or rule says for not run", function()
    covers({ verb = "other", writes_data = true, where = "always", inner_verb = "delete" },
      last("prepare p as delete from t where true"), "p")
    covers({ writes_data = false, relations = { { name = "t", access = "read" } } },
      last("create function f() returns void language sql begin atomic delete from t; end"), "atomic")
    covers({ writes_data = false }, last("create rule r as on insert to t do also delete from u"), "rule")
  end)

  it("gives every schema that is named", function()
    for text, expected in pairs {
      ["select a.f(1) from b.t"] = { "a", "b" }, ["create table t (a x.y)"] = { "x" }, ["select 1::q.t"] = { "q" },
      ["alter table t add foreign key (a) references z.u"] = { "z" },
        ["select set_config('search_path', 'q, \"W\"', false)"] = { "W", "q" },
      ["select 'q.f(int)'::regprocedure"] = { "q" }, ["grant usage on schema a, b to c"] = { "a", "b" },
      ["grant select on all tables in schema a to c"] = { "a" }, ["create view v as select * from a.b"] = { "a" },
      ["select pg_catalog.now()"] = { "pg_catalog" }, ["select extract(year from now())"] = {}, ["create table t (a int)"] = {},
      ["create function f() returns int language sql set search_path = a, pg_temp as 'select 1'"] = { "a" },
    } do
      assert.same(expected, last(text).schemas, text)
    end
  end)
end)

describe("facts: rights", function()
  it("of GRANT and REVOKE", function()
    check {
      { "grant select (a), insert on table s.t, u to public, bob with grant option", { verb = "grant", kind = "table",
        schema = "s", name = "t", columns = { "a" }, relation = { schema = "s", name = "t" },
        grant = { privileges = { "select", "insert" }, grantees = { "public", "bob" }, with_grant_option = true, revoke = false,
          objects = { { schema = "s", name = "t" }, { name = "u" } } } } },
      { "grant all on schema s to bob", { kind = "schema", grant = { privileges = { "all" }, objects = { { name = "s" } } } } },
      { "grant select on all tables in schema a to bob", { grant = { all_in_schemas = { "a" } } } },
      { "revoke all on t from public cascade", { verb = "revoke", cascade = true, grant = { revoke = true,
        grantees = { "public" } } } },
      { "grant execute on function s.f(int) to current_user", { kind = "function", name = "f", schemas = { "s" },
        grant = { grantees = { "current_user" } } } },
      { "grant admin to bob with admin option", { kind = "role", name = "admin", grant = { roles = { "admin" },
        grantees = { "bob" },
        with_admin_option = true } } },
      { "alter default privileges in schema a grant all on tables to public", { verb = "alter", kind = "default_privileges",
        schemas = { "a" }, grant = { default = true, grantees = { "public" }, privileges = { "all" }, object_kind = "table" } } },
    }
  end)

  it("of roles", function()
    check {
      { "create user bob superuser password 'x' in role z connection limit 3", { kind = "role", name = "bob",
        role = { name = "bob", password = true, options = { superuser = true, login = true, connection_limit = 3,
          in_role = { "z" } } } } },
      { "create role r nologin", { role = { options = { login = false }, password = false } } },
      { "alter role r nosuperuser bypassrls password null", { verb = "alter", role = { password = false,
        options = { superuser = false, bypassrls = true } } } },
      { "alter role bob set search_path = a, b", { verb = "alter", kind = "role", name = "bob", schemas = { "a", "b" },
        role = { settings = { search_path = "a, b" } }, setting = { name = "search_path" } } },
      { "alter role all in database d set work_mem to default", { name = "all", role = { database = "d" },
        setting = { reset = true } } },
    }
    assert.is_false(last("create role r superuser nologin").role.options.login)
  end)

  it("of functions", function()
    covers({ function_ = { language = "plpgsql", security_definer = true, settings = { search_path = "a, pg_temp" } },
      replace = true },
      last("create or replace function f() returns int language plpgsql security definer "
        .. "set search_path = a, pg_temp as $$x$$"), "f")
    local fixed = last("create function f() returns int security definer set search_path = '' as 'x'").function_
    assert.equal("", fixed.settings.search_path)
    assert.is_nil(last("create function f() returns int security definer as 'x'").function_.settings.search_path)
  end)
end)

describe("facts: what is new", function()
  it("is what the step created before", function()
    for text, expected in pairs {
      ["create table t (); alter table t add a int"] = true, ["create table s.t (); alter table t add a int"] = true,
      ["create table t (); alter table public.t add a int"] = true, ["create table a.t (); alter table b.t add c int"] = false,
      ["create table t (); create index i on t (a)"] = true, ["create index i on t (a)"] = false,
      ["create table T (); delete from \"t\""] = true, ["create table \"T\" (); delete from t"] = false,
      ["create temp table t (); update t set a = 1"] = true, ["update pg_temp.t set a = 1"] = true,
      ["select 1 into t; delete from t"] = true, ["create table t as select 1; drop table t"] = true,
      ["create table t (); drop table t; delete from t"] = false,
        ["create table a (); alter table a rename to b; delete from b"] = true,
      ["create table a (); alter table a rename to b; delete from a"] = false, ["create schema s; delete from s.t"] = true,
      ["create table t (); alter table t set schema z; delete from z.t"] = true,
      ["alter table a rename to b; delete from b"] = false, ["create table if not exists t (); create index on t (a)"] = true,
      ["create index i on t (a); drop index i"] = true, ["alter table u add a int; alter table t rename column a to b"] = false,
      ["create function f() returns int as 'x'; alter function f() owner to bob"] = true,
    } do
      assert.equal(expected, last(text).new, text)
    end
  end)

  it("gives an index its table", function()
    assert.same({ schema = "s", name = "t" }, last("create index i on s.t (a); drop index s.i").relation)
  end)
end)

describe("facts: what breaks an older release", function()
  local function breaking(text)
    return last(text).breaking
  end

  it("is what takes away or changes what it reads", function()
    for text, expected in pairs {
      ["drop table s.t"] = "drops table s.t", ["drop table a, b"] = "drops table a; drops table b",
        ["drop view v"] = "drops view v",
      ["drop function f(int)"] = "drops function f", ["drop type t"] = "drops type t", ["drop schema s"] = "drops schema s",
      ["drop sequence s"] = "drops sequence s", ["drop materialized view m"] = "drops materialized view m",
      ["drop owned by bob"] = "drops owned bob", ["drop extension e"] = "drops extension e",
      ["alter table t drop column a"] = "drops column t.a", ["alter type t drop attribute a"] = "drops attribute t.a",
      ["alter table t rename to u"] = "renames table t to u", ["alter table t rename a to b"] = "renames column t.a to b",
      ["alter type t rename to u"] = "renames type t to u", ["alter type t rename value 'a' to 'b'"] = "renames value 'a' of t",
      ["alter schema a rename to b"] = "renames schema a to b",
        ["alter table t alter a type int"] = "changes the type of t.a to integer",
      ["alter table t alter a type text using f(a)"] = "changes the type of t.a to text",
      ["alter table t alter a type varchar(20)"] = "changes the type of t.a to varchar(20) (unless the old one was "
        .. "shorter: a waiver may say so)",
      ["alter table t alter a type varchar(20) using left(a, 20)"] = "changes the type of t.a to varchar(20)",
      ["alter table t enable row level security"] = "turns on row level security of t, which hides rows from those who "
        .. "read it now",
      ["alter table t force row level security"] = "forces row level security of t on its owner, which hides rows from "
        .. "those who read it now",
      ["alter table t alter a set not null"] = "sets NOT NULL on t.a", ["alter domain d set not null"] = "sets NOT NULL on d",
      ["alter table t add a int not null"] = "adds column t.a as NOT NULL without a default",
      ["alter table t add a int primary key"] = "adds column t.a as NOT NULL without a default",
      ["alter table t add a int; alter table t alter a set not null"] = "sets NOT NULL on t.a",
      ["alter table t set schema s"] = "moves table t to schema s", ["truncate t"] = "empties table t",
      ["alter table t alter a drop identity"] = "drops the identity of t.a",
      ["create table t (); drop table u"] = "drops table u", ["create table if not exists t (); drop table t"] = "drops table t",
      ["drop function f(int); select 1"] = false,
    } do
      assert.equal(expected, breaking(text) or false, text)
    end
  end)

  it("is not what it can't notice", function()
    for _, text in ipairs {
      "alter table t drop constraint c", "drop index i", "drop trigger g on t", "drop policy p on t",
        "alter table t alter a drop default",
      "alter table t alter a drop not null", "alter table t add a int", "alter table t add a int not null default 0",
      "alter table t add a int not null generated always as identity", "alter table t add a bigserial",
      "alter table t add a int not null generated always as (1) stored", "alter table t alter a type text",
      "alter table t alter a type varchar using a::varchar", "alter table t add constraint c check (a > 0) not valid",
      "alter table t add foreign key (a) references u", "alter table t rename constraint a to b", "alter index i rename to j",
      "alter type t add value 'x'", "delete from t", "create or replace view v as select 1", "drop publication p",
      "alter table t add a int not null default 1; alter table t alter a set not null",
      "alter table t add a int; alter table t alter a set default 1; alter table t alter a set not null",
      "alter table t disable row level security", "alter table t no force row level security",
      -- what the step itself created
      "create table t (); alter table t enable row level security", "create table t (); alter table t force row level security",
      "create table t (); drop table t", "create table t (a int); alter table t drop column a", "create table t (); truncate t",
      "create temp table t (); drop table t", "create table t (); alter table public.t rename to u",
      "create schema s; drop table s.t",
      "create schema s; alter table s.s rename to t; drop schema s",
      "create function f() returns int as 'x'; drop function f()", "create type t as enum (); drop type t",
      "create domain d as int; alter domain d set not null", "create view v as select 1; drop view v",
      "alter table t add a int; alter table t drop column a", "alter table t add a int; alter table t rename a to b",
      "create type t as enum ('a'); alter type t rename value 'a' to 'b'",
    } do
      assert.is_nil(breaking(text), text)
    end
  end)

  it("is not a DROP whose object comes back in the same step", function()
    local function first(text)
      return all(text)[1].breaking
    end
    assert.is_nil(first "drop view v; create view v as select 1")
    assert.is_nil(first "drop view s.v; create view v as select 1")
    assert.is_nil(first "drop view v; create materialized view v as select 1")
    assert.is_nil(first "drop function f(int); create function f(int4) returns int as 'x'")
    assert.is_nil(first "drop function f; create function f(text) returns int as 'x'")
    assert.equal("drops function f", first "drop function f(int); create function f(text) returns int as 'x'")
    assert.equal("drops table t", first "drop table t; create table t ()")
    assert.equal("drops view v", first "drop view v; create view w as select 1")
    assert.equal("drops view v", all("create view v as select 1; drop view v; drop view v")[3].breaking)
    assert.is_nil(all("create view w as select 1; drop view v; create view v as select 1")[2].breaking)
  end)

  it("is not a rename behind a view of the old name", function()
    local list = all "alter table t rename a to b; alter table t rename to t_base; create view t as select b, b as a from t_base"
    assert.is_nil(list[1].breaking)
    assert.is_nil(list[2].breaking)
    list = all "alter table t rename a to b; alter table t rename to t_base; create view t as select b from t_base"
    assert.equal("renames column t.a to b", list[1].breaking)
    assert.is_nil(all("alter table t set schema s; create view t as select * from s.t")[1].breaking)
  end)

  it("names each action", function()
    local st = last("alter table t add x int, drop column a, drop column b")
    assert.equal("drops column t.a; drops column t.b", st.breaking)
    assert.is_nil(st.actions[1].breaking)
    assert.equal("drops column t.b", st.actions[3].breaking)
  end)
end)

describe("facts: what destroys", function()
  it("data", function()
    for text, expected in pairs {
      ["drop table t"] = "drops table t", ["drop schema s cascade"] = "drops schema s", ["drop database d"] = "drops database d",
      ["alter table t drop a"] = "drops column t.a", ["truncate t, u"] = "empties table t; empties table u",
      ["delete from t where a"] = "deletes rows of t",
        ["merge into t using u on true when matched then delete"] = "deletes rows of t",
      ["alter table t alter a type int"] = "changes the type of t.a to integer, which may not hold every old value",
      ["drop type t cascade"] = "drops type t and, by CASCADE, the columns that use it",
      ["create table if not exists t (); delete from t"] = "deletes rows of t",
      ["drop materialized view m"] = false, ["drop view v"] = false, ["drop type t"] = false, ["drop index i"] = false,
      ["update t set a = 1"] = false, ["alter table t alter a type bigint"] = false, ["alter table t alter a type text"] = false,
      ["alter table t alter a type text using left(a, 3)"] =
        "changes the type of t.a to text, which may not hold every old value",
      ["merge into t using u on true when matched then update set a = 1"] = false, ["create table t (); delete from t"] = false,
      ["create table t (); drop table t"] = false, ["create temp table t (); truncate t"] = false,
    } do
      assert.equal(expected, last(text).destroys or false, text)
    end
  end)
end)

describe("facts: what is heavy", function()
  it("on what exists", function()
    for text, expected in pairs {
      ["create index i on t (a)"] = "builds an index on t",
        ["create index concurrently i on s.t (a)"] = "builds an index on s.t concurrently",
      ["vacuum full t"] = "rewrites t (VACUUM FULL)", ["cluster t"] = "rewrites t (CLUSTER)",
      ["reindex table t"] = "rebuilds the indexes of table t",
        ["refresh materialized view m"] = "runs the query of materialized view m again",
      ["alter table t validate constraint c"] = "validates c on every row of t",
        ["alter table t set logged"] = "rewrites t to make it logged",
      ["alter table t set tablespace x"] = "moves t to tablespace x", ["alter table t add a uuid default gen_random_uuid()"] =
        "rewrites t for a volatile default (a)",
      ["alter table t add a bigserial"] = "rewrites t for a serial (a)",
        ["alter table t add unique (a)"] = "builds an index on t for unique",
      ["alter table t add constraint c foreign key (a) references u"] = "checks every row of t for c",
      ["alter table t add a int default 1 references u"] = "checks every row of t for foreign key",
      ["alter table t alter a type int"] =
        "changes the type of t.a to integer, which rewrites the table unless the old type is stored alike",
      ["alter table t add a int references u"] = false, ["alter table t add constraint c check (a > 0) not valid"] = false,
      ["alter table t add unique using index i"] = false, ["alter table t alter a type text"] = false, ["vacuum t"] = false,
      ["alter table t add a timestamptz default now()"] = false, ["create index i on only t (a)"] = false,
      ["refresh materialized view m with no data"] = false, ["drop index i"] = false, ["create table t ()"] = false,
      ["create table t (); create index i on t (a)"] = false, ["create table t (); alter table t add unique (a)"] = false,
      ["create materialized view m as select 1; refresh materialized view m"] = false,
    } do
      assert.equal(expected, last(text).heavy or false, text)
    end
  end)
end)

describe("facts.of_text", function()
  it("gives places in the file", function()
    local list = all("select 1;\n  -- é\n  é; update t\nset a = 1", { file = "f.sql", direction = "down" })
    covers({
      { index = 1, line = 1, column = 1, file = "f.sql", direction = "down", source = "sql" },
      { index = 2, line = 3, column = 3, text = "é", parsed = false },
      { index = 3, line = 3, column = 6, last_line = 4, text = "update t\nset a = 1" },
    }, list, "list")
  end)

  it("leaves the data of COPY out, and comments in", function()
    local list = all("copy t from stdin;\n1\n\\.\ndelete /* all of it */ from t")
    covers({ { verb = "copy", class = "copy", writes_data = true, text = "copy t from stdin" }, { verb = "delete", line = 4 } },
      list, "l")
  end)

  it("says why a text can't be split", function()
    local list, problem = facts.of_text("select 'a")
    assert.same({}, list)
    assert.matches("unterminated", problem.message)
  end)

  it("makes the tree when asked, and keeps none", function()
    local st = last("select 1 from t")
    assert.is_nil(rawget(st, "tree"))
    assert.equal("t", st.tree.SelectStmt.fromClause[1].RangeVar.relname)
    assert.is_nil(rawget(st, "tree"))
    assert.is_nil(st.no_such_key)
  end)

  it("bears deep and long statements", function()
    local st = last("select 1" .. (" + 1"):rep(900))
    assert.is_true(st.parsed)
    st = last("select " .. ("("):rep(3000) .. "1" .. (")"):rep(3000))
    assert.is_boolean(st.parsed)
    st = last("create view v as select 'a'" .. ("||'a'"):rep(100000)) -- a tree as deep as that is long
    assert.same({ false, "nested too deep" }, { st.parsed, st.problem })
    st = last("insert into t values (1)" .. (", (1)"):rep(1000000))
    assert.same({ false, "too long to be looked into", "insert" }, { st.parsed, st.problem, st.verb })
    st = last("insert into t values (1)" .. (", (1)"):rep(20000))
    assert.equal("insert", st.verb)
  end)
end)

describe("facts.step", function()
  it("of a .sql file, both directions, several sections", function()
    local m = migration [[
-- migrate:up
create table t ();
-- migrate:down
drop table t;
-- migrate:up
  drop table t;
-- migrate:down
]]
    local up = facts.step(m, "up")
    assert.equal("sql", up.kind)
    assert.is_false(up.opaque)
    covers({
      { line = 2, column = 1, direction = "up", source = "sql", file = m.file, index = 1 },
      { line = 6, column = 3, verb = "drop", new = true, breaking = false, index = 2 },
    }, up.statements, "up")
    local down = facts.step(m, "down")
    covers({ { line = 4, direction = "down", breaking = "drops table t" } }, down.statements, "down")
    assert.equal(1, #down.statements)
  end)

  it("of a string in a Lua file: places are the file's", function()
    local m = migration("return {\n  description = 'x',\n  up = [[\n    create table t ();\n  create index on t (a)]],\n"
      .. "  down = 'drop table t; drop table u',\n}\n", "lua")
    local up = facts.step(m, "up")
    covers({ { line = 4, column = 5, source = "string" }, { line = 5, column = 3, new = true } }, up.statements, "up")
    local down = facts.step(m, "down")
    covers({ { line = 6, column = 11, source = "string" }, { line = 6, column = 25 } }, down.statements, "down")
  end)

  it("of a function: opaque, or what was recorded", function()
    local m = migration("return { description = 'x',\n  up = function(db)\n    db:query 'select 1'\n  end }", "lua")
    assert.same({ kind = "function", opaque = true, statements = {} }, facts.step(m, "up"))
    assert.same({ kind = "none", opaque = false, statements = {} }, facts.step(m, "down"))
    m.recorded = { up = {
      { text = "create table t ()", line = 3, params = {}, reads = {} },
      { text = "update t set a = $1;\ndelete from u", line = 4, params = { "x" }, reads = { "x" } },
    } }
    local up = facts.step(m, "up")
    assert.is_false(up.opaque)
    covers({
      { source = "function", line = 3, file = m.file, verb = "create" },
      { verb = "update", line = 4, new = true, params = { "x" }, reads = { "x" } },
      { verb = "delete", destroys = "deletes rows of u", params = { "x" } },
    }, up.statements, "up")
  end)
end)

describe("sql.tree", function()
  it("is what the JSON says", function()
    local json = require "moonbird.core.json"
    for _, text in ipairs {
      "select 1", "select 'a\"b\\c\n\t\1é<>😀' as \"x\"\"y\"", "create table t (a int default -5, b bool default true)",
      "select 1.5e10, 12345678901234567890, null, false", "lock table a", "select E'\\u00e9'", "",
    } do
      assert.same(json.decode((assert(sql.parse(text)))), sql.tree(text), text)
    end
    local tree, wrong = sql.tree("selec")
    assert.is_nil(tree)
    assert.same(select(2, sql.parse("selec")), wrong)
    assert.same({ nil, wrong }, { sql.tree("selec", true) })
  end)

  it("leaves out the constants of VALUES when it is lean, and nothing else", function()
    local function without_constants(node)
      for key, value in pairs(node) do
        for _, row in ipairs(key == "valuesLists" and value or {}) do
          local items = row.List.items
          for i = #items, 1, -1 do
            if items[i].A_Const then
              table.remove(items, i)
            end
          end
        end
        if type(value) == "table" then
          without_constants(value)
        end
      end
      return node
    end
    for text, constants in pairs {
      ["insert into t values (1, 'a}]\"\\', nextval('s.q'), default, 1.5), (null, true, b'1', $1, -2)"] = true,
      ["values (1, (values (2), (x)), array[3], row(4), (select 5 in (6, 7))), (E'\\\\\"}', 'b', f(8, 9))"] = true,
      ["select 1, 'a' from (values (1, 'x')) v (a, b) where a in (1, 2) and b = any (values ('y'), ('z'))"] = true,
      ["create table t (a int default 5, b numeric(3, 2) check (a in (1, 2)))"] = false,
    } do
      local full = sql.tree(text)
      assert.same(without_constants(sql.tree(text)), sql.tree(text, true), text)
      assert.equal(constants, not pcall(assert.same, full, sql.tree(text, true)), text)
    end
    local st = last("insert into t values (1, nextval('s.q'))")
    assert.same({ { name = "t", access = "write" }, { schema = "s", name = "q", access = "write" } }, st.relations)
    assert.equal(1, st.tree.InsertStmt.selectStmt.SelectStmt.valuesLists[1].List.items[1].A_Const.ival.ival)
  end)
end)
