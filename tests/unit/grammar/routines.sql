-- Functions, procedures, triggers, rules, and the bodies that hold semicolons.
CREATE FUNCTION add(integer, integer) RETURNS integer
    AS 'select $1 + $2;'
    LANGUAGE SQL
    IMMUTABLE
    RETURNS NULL ON NULL INPUT;
CREATE OR REPLACE FUNCTION increment(i integer) RETURNS integer AS $$
        BEGIN
                RETURN i + 1;
        END;
$$ LANGUAGE plpgsql;
CREATE FUNCTION dup(in int, out f1 int, out f2 text)
    AS $_$ SELECT $1, CAST($1 AS text) || ' is; text' $_$
    LANGUAGE SQL;
CREATE FUNCTION t(int) RETURNS TABLE(f1 int, f2 text) AS $body$ SELECT $1, 'a$$b;' $body$ LANGUAGE SQL ROWS 10 COST 5 SUPPORT f;
CREATE FUNCTION check_password(uname TEXT, pass TEXT) RETURNS BOOLEAN AS $$
DECLARE passed BOOLEAN;
BEGIN
        SELECT  (pwd = $2) INTO passed FROM pwds WHERE username = $1;
        RETURN passed;
END;
$$  LANGUAGE plpgsql SECURITY DEFINER SET search_path = admin, pg_temp;
CREATE FUNCTION c(VARIADIC arr numeric[] DEFAULT '{}'::numeric[], INOUT x int = 4) RETURNS SETOF record LANGUAGE c STRICT PARALLEL SAFE LEAKPROOF WINDOW AS 'lib', 'sym;bol';
CREATE FUNCTION f() RETURNS trigger TRANSFORM FOR TYPE hstore, FOR TYPE x LANGUAGE plpython3u AS $python$ return ";" $python$;
CREATE FUNCTION add(a integer, b integer) RETURNS integer LANGUAGE SQL IMMUTABLE RETURN a + b;
CREATE FUNCTION f(x int) RETURNS int RETURN CASE WHEN x > 0 THEN 1 ELSE 2 END;
CREATE PROCEDURE insert_data(a integer, b integer) LANGUAGE SQL BEGIN ATOMIC
  INSERT INTO tbl VALUES (a);
  INSERT INTO tbl VALUES (b);
END;
CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC END;
create function f() returns int language sql begin atomic
  select case when true then case x when 1 then 2 else 3 end else 4 end from t;
  select 1 as "end";
  select 2 as end;
  select t.end, t.case from (select 1 as end, 2 as case) t;
  select 'end;', $$ end; $$ /* end; */ -- end;
  ;
  return 5;
end;
CREATE FUNCTION f(begin int) RETURNS int BEGIN ATOMIC SELECT begin; END;
CREATE FUNCTION begin.atomic(atomic begin) RETURNS begin BEGIN ATOMIC SELECT 1; END;
CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1 end; SELECT 2 case; SELECT begin atomic FROM t; END;
CREATE FUNCTION f() RETURNS void BEGIN/* x */ATOMIC DELETE FROM t; UPDATE t SET a = 1; WITH x AS (SELECT 1) SELECT * FROM x; END;
CREATE FUNCTION f() RETURNS void BEGIN ATOMIC CREATE FUNCTION g() RETURNS void BEGIN ATOMIC SELECT 1; END; SELECT 2; END;
CREATE FUNCTION f() RETURNS void BEGIN ATOMIC CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2); ; END;
CREATE FUNCTION f() RETURNS void SET x TO begin LANGUAGE SQL BEGIN ATOMIC END;
CREATE FUNCTION "create function"() RETURNS "begin" LANGUAGE SQL BEGIN ATOMIC SELECT "end" FROM "begin atomic"; END;
ALTER FUNCTION sqrt(integer) RENAME TO square_root;
ALTER FUNCTION sqrt(integer) OWNER TO joe;
ALTER FUNCTION sqrt(integer) DEPENDS ON EXTENSION mathlib;
ALTER FUNCTION check_password(text) SET search_path = admin, pg_temp;
ALTER FUNCTION f RESET ALL;
ALTER FUNCTION f(int) STRICT IMMUTABLE RESTRICT;
ALTER FUNCTION f(int) CALLED ON NULL INPUT EXTERNAL SECURITY INVOKER PARALLEL RESTRICTED COST 3;
ALTER PROCEDURE insert_data(integer, integer) SET SCHEMA accounting;
ALTER ROUTINE foo(integer) RENAME TO foobar;
DROP FUNCTION sqrt(integer), f CASCADE;
DROP FUNCTION IF EXISTS f(int, VARIADIC text[]);
DROP PROCEDURE do_db_maintenance();
DROP ROUTINE foo(integer);
CREATE AGGREGATE avg (float8) (sfunc = float8_accum, stype = float8[], finalfunc = float8_avg, initcond = '{0,0,0}');
CREATE OR REPLACE AGGREGATE a (ORDER BY anyelement) (sfunc = f, stype = internal, hypothetical);
CREATE AGGREGATE a (*) (sfunc = f, stype = int);
CREATE AGGREGATE old (basetype = int, sfunc = f, stype = int);
ALTER AGGREGATE myavg(integer) RENAME TO my_average;
ALTER AGGREGATE mypercentile(float8 ORDER BY integer) SET SCHEMA myschema;
DROP AGGREGATE IF EXISTS myavg(integer), mycount(*);
CREATE TRIGGER check_update BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION check_account_update();
CREATE OR REPLACE TRIGGER check_update BEFORE UPDATE OF balance, x ON accounts FOR EACH ROW WHEN (OLD.balance IS DISTINCT FROM NEW.balance) EXECUTE PROCEDURE check_account_update(1, 'a;', x);
CREATE TRIGGER view_insert INSTEAD OF INSERT OR DELETE ON my_view FOR EACH ROW EXECUTE FUNCTION view_insert_row();
CREATE TRIGGER transfer_insert AFTER INSERT ON transfer REFERENCING NEW TABLE AS inserted OLD TABLE AS o FOR EACH STATEMENT EXECUTE FUNCTION f();
CREATE CONSTRAINT TRIGGER t AFTER INSERT ON a FROM b DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f();
CREATE TRIGGER t AFTER TRUNCATE ON a EXECUTE FUNCTION f();
ALTER TRIGGER emp_stamp ON emp RENAME TO emp_track_chgs;
ALTER TRIGGER emp_stamp ON emp DEPENDS ON EXTENSION emplib;
DROP TRIGGER IF EXISTS if_dist_exists ON films CASCADE;
CREATE EVENT TRIGGER abort_ddl ON ddl_command_start WHEN TAG IN ('DROP TABLE', 'ALTER;') EXECUTE FUNCTION abort_any_command();
ALTER EVENT TRIGGER a ENABLE REPLICA;
ALTER EVENT TRIGGER a DISABLE;
ALTER EVENT TRIGGER a OWNER TO b;
DROP EVENT TRIGGER snitch;
CREATE RULE "_RETURN" AS ON SELECT TO t1 DO INSTEAD SELECT * FROM t2;
CREATE OR REPLACE RULE notify_me AS ON UPDATE TO mytable WHERE old.a > 1 DO ALSO NOTIFY mytable;
CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING;
CREATE RULE r AS ON DELETE TO t DO (DELETE FROM a; INSERT INTO b VALUES (';'); UPDATE c SET d = 1; NOTIFY x;);
CREATE RULE r AS ON INSERT TO t DO (SELECT 1;);
CREATE RULE r AS ON INSERT TO t DO (; ; SELECT 1 AS end; SELECT 2);
ALTER RULE notify_all ON emp RENAME TO notify_me;
DROP RULE newrule ON mytable;
CALL do_db_maintenance();
CALL s.p(1, x => 2, VARIADIC y := ARRAY[1]);
DO $$DECLARE r record;
BEGIN
    FOR r IN SELECT table_schema, table_name FROM information_schema.tables
    LOOP
        EXECUTE 'GRANT ALL ON ' || quote_ident(r.table_schema) || '.' || quote_ident(r.table_name) || ' TO webuser';
    END LOOP;
END$$;
DO LANGUAGE plpgsql 'BEGIN NULL; END';
DO 'x' LANGUAGE sql;
CREATE LANGUAGE plsample HANDLER plsample_call_handler INLINE f VALIDATOR g;
CREATE OR REPLACE TRUSTED PROCEDURAL LANGUAGE plsample HANDLER h NO VALIDATOR;
ALTER PROCEDURAL LANGUAGE a RENAME TO b;
ALTER LANGUAGE a OWNER TO b;
DROP PROCEDURAL LANGUAGE IF EXISTS plsample;
CREATE TRANSFORM FOR hstore LANGUAGE plpython3u (FROM SQL WITH FUNCTION hstore_to_plpython(internal), TO SQL WITH FUNCTION plpython_to_hstore(internal));
DROP TRANSFORM IF EXISTS FOR hstore LANGUAGE plpython3u CASCADE;
