-- description: A shop's customers, what happened, and who wants the newsletter; with rows as they were found
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
--
-- migrate:up
create table customer (
    id bigint primary key,
    full_name text not null,
    phone text
);
create table event (
    id bigint primary key,
    at timestamptz not null,
    what text not null
);
create table subscription (
    id bigint primary key,
    email text not null
);
create index subscription_by_email on subscription (lower(email), id);

insert into customer
    select n, 'Given' || n || ' Family' || n % 97, '(030) 555-' || lpad(n::text, 5, '0') from generate_series(1, 3000) n;
insert into event
    select n, '2023-01-01 00:00 UTC'::timestamptz + n * interval '6 hours', 'order ' || n from generate_series(1, 4000) n;
insert into subscription
    select n, case when n % 10 = 0 then 'READER' || n - 1 else 'reader' || n end || '@example.org'
    from generate_series(1, 2000) n;
analyze customer, event, subscription;

-- migrate:down
drop table customer, event, subscription;
