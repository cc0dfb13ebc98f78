-- SELECT and everything that reads or writes rows.
SELECT;
SELECT 1;
(SELECT 1);
((SELECT 1) UNION (SELECT 2)) ORDER BY 1;
TABLE films;
VALUES (1, 'one'), (2, 'two;'), (3, DEFAULT);
SELECT DISTINCT ON (location) location, time, report FROM weather_reports ORDER BY location, time DESC NULLS LAST;
SELECT ALL f.title, f.did, d.name AS "a;b" FROM distributors d JOIN films f USING (did) AS u;
SELECT kind, sum(len) AS total FROM films GROUP BY kind HAVING sum(len) < interval '5 hours';
SELECT * FROM a NATURAL LEFT OUTER JOIN b CROSS JOIN c FULL JOIN d ON (true) RIGHT JOIN e USING (x);
SELECT * FROM ONLY films, other *, LATERAL (SELECT 1) x (y), ROWS FROM (f(1) AS (a int), g(2)) WITH ORDINALITY AS t (a, b);
SELECT * FROM t TABLESAMPLE BERNOULLI (10) REPEATABLE (5), s.f(1) f;
SELECT distributors.name FROM distributors WHERE distributors.name LIKE 'W%' ESCAPE '\' UNION ALL SELECT actors.name FROM actors INTERSECT DISTINCT SELECT 2 EXCEPT SELECT 3;
WITH t AS (SELECT random() as x FROM generate_series(1, 3)) SELECT * FROM t UNION ALL SELECT * FROM t;
WITH RECURSIVE employee_recursive(distance, employee_name) AS (
    SELECT 1, employee_name FROM employee WHERE manager_name = 'Mary'
  UNION ALL
    SELECT er.distance + 1, e.employee_name FROM employee_recursive er, employee e
) SEARCH DEPTH FIRST BY x SET y CYCLE z SET is_cycle TO true DEFAULT false USING path
SELECT distance, employee_name FROM employee_recursive;
WITH a AS MATERIALIZED (SELECT 1), b AS NOT MATERIALIZED (DELETE FROM x RETURNING *) SELECT;
SELECT a, b FROM t GROUP BY ROLLUP (a, b), CUBE (a), GROUPING SETS ((a), (b), ()) ;
SELECT sum(x) FILTER (WHERE y > 0) OVER (PARTITION BY a ORDER BY b ROWS BETWEEN 1 PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE TIES) FROM t WINDOW w AS (ORDER BY c), v AS (w RANGE CURRENT ROW);
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x), string_agg(a, ';' ORDER BY b), count(DISTINCT c), count(*) FROM t;
SELECT * FROM films ORDER BY a USING >, b ASC OFFSET 10 ROWS FETCH FIRST 5 ROWS WITH TIES;
SELECT * FROM films LIMIT ALL OFFSET 3 FOR NO KEY UPDATE OF films SKIP LOCKED FOR KEY SHARE NOWAIT;
SELECT * FROM films FETCH NEXT ROW ONLY FOR READ ONLY;
SELECT CASE WHEN a = 1 THEN 'one;' WHEN a = 2 THEN 'two' ELSE 'other' END, CASE a WHEN 1 THEN 2 END FROM test;
SELECT 1 end;
SELECT 1 case;
SELECT 1 AS end, 2 AS begin, 3 begin, t.end FROM t;
SELECT begin FROM end_of_things;
SELECT a[1], b[2:3], c[:], d[1:][2], (e).f, (g).*, h.i.j, ($1).k, $2[1] FROM t;
SELECT ARRAY[1, 2, 3], ARRAY[[1], [2]], ARRAY(SELECT 1), ROW(1, 2), (1, 2), ROW();
SELECT a::int, CAST(b AS numeric(10, 2)), int4 '3', interval '1' day, interval(3) '1 day', timestamp with time zone '2004-10-19', date 'epoch', bit varying(3) '101';
SELECT x IS NULL, x ISNULL, x NOTNULL, x IS NOT TRUE, x IS UNKNOWN, x IS DISTINCT FROM y, x IS DOCUMENT, x IS NFC NORMALIZED;
SELECT a BETWEEN SYMMETRIC 1 AND 2, a NOT IN (1, 2), a IN (SELECT 1), a = ANY (ARRAY[1]), a <> ALL (SELECT 2), EXISTS (SELECT 1), a NOT LIKE ALL (ARRAY['x']), a SIMILAR TO 'b', a ~* 'c' ;
SELECT extract(epoch FROM x), overlay('a' placing 'b' from 1 for 2), position('a' in 'b'), substring('a' from 1 for 2), substring('a' similar 'b' escape 'c'), trim(both 'x' from 'y'), trim(leading from 'a'), collation for ('x'), normalize('a', NFD), treat(a as int);
SELECT coalesce(a, b), greatest(1, 2), least(1, 2), nullif(a, b), current_date, current_time(3), localtimestamp, current_user, current_schema, session_user;
SELECT xmlelement(name foo, xmlattributes('v' as end), 'c'), xmlforest(a, b as c), xmlparse(document '<a/>' strip whitespace), xmlpi(name php, 'echo;'), xmlroot('x', version no value, standalone yes), xmlserialize(content x as text), xmlconcat(a, b), xmlexists('//a' passing by ref x);
SELECT * FROM xmltable(xmlnamespaces('http://x' AS x, DEFAULT 'y'), '/rows/row' PASSING data COLUMNS id int PATH '@id' NOT NULL, o FOR ORDINALITY, d text DEFAULT ';') AS t;
SELECT a AT TIME ZONE 'utc', a COLLATE "C", -a, +b, @ c, NOT d, a || b, a OPERATOR(pg_catalog.+) b, a -> 'b' ->> 'c' #>> '{d}', a @> b, a ? 'k', a ?| b, a ?& c, a <@ d, |/ 4, !!x ;
SELECT f(VARIADIC ARRAY[1]), g(a => 1, b := 2), h(DISTINCT x ORDER BY y), s.i(), (SELECT 1) + 2, f(x) IGNORE;
SELECT * FROM (VALUES (1, 2)) AS t (a, b), (SELECT 1) s, json_to_recordset('[]') AS x(a int, b text);
INSERT INTO films VALUES ('UA502', 'Bananas;', 105, '1971-07-13', 'Comedy', '82 minutes');
INSERT INTO films (code, title[1], a.b) OVERRIDING SYSTEM VALUE VALUES (DEFAULT, 'x', 1) RETURNING *, did AS end;
INSERT INTO films DEFAULT VALUES;
INSERT INTO films AS f SELECT * FROM tmp_films ON CONFLICT (did) WHERE active DO UPDATE SET dname = EXCLUDED.dname, (a, b) = (1, DEFAULT) WHERE f.x <> ';' RETURNING f.did;
INSERT INTO films SELECT 1 ON CONFLICT ON CONSTRAINT c DO NOTHING;
WITH upd AS (UPDATE employees SET sales_count = sales_count + 1 RETURNING *) INSERT INTO employees_log SELECT *, current_timestamp FROM upd;
UPDATE films SET kind = 'Dramatic;' WHERE kind = 'Drama';
UPDATE ONLY weather AS w SET temp_lo = temp_lo+1, prcp = DEFAULT, (a, b) = ROW(1, 2), (c, d) = (SELECT 1, 2), e[3] = 4 FROM x WHERE city = 'SF' RETURNING temp_lo;
UPDATE films SET kind = 'Dramatic' WHERE CURRENT OF c_films;
DELETE FROM films USING producers WHERE producer_id = producers.id AND producers.name = ';';
DELETE FROM ONLY films AS f WHERE CURRENT OF c_tasks RETURNING *;
WITH x AS (SELECT 1) DELETE FROM y;
MERGE INTO customer_account ca USING recent_transactions t ON t.customer_id = ca.customer_id
WHEN MATCHED AND ca.x > 1 THEN UPDATE SET balance = balance + transaction_value
WHEN NOT MATCHED THEN INSERT (customer_id, balance) VALUES (t.customer_id, t.transaction_value)
WHEN MATCHED THEN DELETE
WHEN NOT MATCHED THEN DO NOTHING;
WITH a AS (SELECT 1) MERGE INTO ONLY b USING (SELECT 1) c ON true WHEN NOT MATCHED THEN INSERT DEFAULT VALUES;
COPY country TO STDOUT (DELIMITER '|');
COPY country (a, b) FROM '/usr1/proj/bray/sql/country;data' WITH (FORMAT csv, HEADER true, FORCE_NULL (a), ENCODING 'utf8') WHERE a > 1;
COPY (SELECT * FROM country WHERE country_name LIKE 'A%') TO PROGRAM 'gzip > /usr1/a;';
COPY BINARY a TO '/tmp/x';
COPY a TO STDOUT WITH DELIMITER AS ';' NULL AS '' CSV HEADER QUOTE '"' FORCE QUOTE *;
EXPLAIN SELECT * FROM foo;
EXPLAIN (ANALYZE, FORMAT JSON, BUFFERS off, VERBOSE true) UPDATE a SET b = 1;
EXPLAIN ANALYZE VERBOSE INSERT INTO a VALUES (';');
EXPLAIN CREATE TABLE a AS SELECT 1;
EXPLAIN DECLARE c CURSOR FOR SELECT 1;
EXPLAIN REFRESH MATERIALIZED VIEW v;
EXPLAIN EXECUTE p (1);
