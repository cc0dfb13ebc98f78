-- Every lexical trap that PostgreSQL 15's grammar accepts; a header comment; with a semicolon
SELECT 'a;b', 'it''s;', '', ';';
SELECT 'continued; '
       'string', 'x'

  'y;';
SELECT E'\';', E'\\', e'\x3b\073\u003b\n', E'a''b;', E'one\'; '
  'two\';';
SELECT '\', 'C:\dir\';
SELECT U&'d\0061t\+000061;', U&'d!0061t!+000061;' UESCAPE '!', u&';';
SELECT U&"d\0061t;", u&"a!0062" UESCAPE '!' FROM t;
SELECT B'1001', b'0', X'1FF;', x'';
SELECT N'na;tional', n'';
SELECT $$a;b$$, $$'$$, $$$$, $a$;$$;$a$, $_x1$ $a$; $b$ $_x1$, $é$;$é$;
SELECT $Q$ $q$ ; $Q$, $a$ $a ; $$ $ab$ $a$, $t$$t;$t$;
SELECT a$b$c, a$ FROM foo$bar WHERE x$1 = $1;
SELECT $1, $2+$3, $10::int;
SELECT "a;b", "a""b;", "--", "/*", "$$" FROM "se;lect";
SELECT /* comment; */ 1 /* nested /* comment; */ still; */ , 2;
SELECT 1 /*/* /**/ ; */*/ ; 
SELECT /**/ 2 /***/ /****/ /*/ ; */ ;
SELECT 1 -- comment;
, 2 -- 'not a string;
-- "nor an identifier;
-- $$ nor this;
-- /* nor this;
;
SELECT 1--2;
+3;
SELECT 1/*;*/+/*;*/2;
SELECT 5 @-- comment ends the operator;
 3;
SELECT 5 */* comment ends the operator; */ 3;
SELECT 4 - -3, 4 +- 3, 2 *-1, 3 @- 4, a <-- ;
 b FROM t;
SELECT a<=b, a>=b, a<>b, a!=b, a =b FROM t WHERE a<-1 AND b>+2;
SELECT 1.5, .5, 5., 1e10, 1.5e-10, 1E+5, 0.0, 1.e3;
SELECT a . b . c, a.*, "a"."b;", "a" . * FROM "a";
SELECT a[1:2], b[ : ], c::d::e;
SELECT CAST('{1,2}' AS int[]), '{";"}'::text[];
;;; ; /* ; */ ; -- ;
SELECT 'é;ü', "naïve;", $ü$ß;$ü$, '日本;語', éà.日本 FROM étoile;
SELECT	'tab'	,
'form feed' ;
SELECT 'vertical' ;
select/**/1;select"a"from"b";select'c';select(1);select $$d$$;table x$$d;
SELECT 1;SELECT 2;SELECT 3
;
SELECT 'x'';', '''', ''';''' ;
SELECT e FROM e WHERE x = b AND n = u AND u&b;
SELECT u & 'a', u&b, n||'x', b <'c', x>'d', e <e'\'';
CREATE TABLE begin (atomic int, create_ int);
CREATE TABLE function (begin int);
CREATE VIEW procedure AS SELECT begin AS atomic FROM function;
SELECT or_, replace(a, b, c) FROM function;
CREATE FUNCTION case_() RETURNS int LANGUAGE sql AS $$ SELECT 1; $$;
SELECT 'last statement without a semicolon' /* and a comment; */ -- at the end;
