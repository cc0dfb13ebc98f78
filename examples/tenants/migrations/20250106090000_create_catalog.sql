-- description: what all shops share
-- owner: platform
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
-- migrate:up
create schema catalog;

create table catalog.shops (
  name text primary key,
  currency text not null default 'EUR',
  tax numeric not null default 0.20
);

create table catalog.products (
  id bigint generated always as identity primary key,
  name text not null
);

create table catalog.alarms (
  id bigint generated always as identity primary key,
  message text not null,
  open boolean not null default true
);

-- migrate:down
drop table catalog.alarms;
drop table catalog.products;
drop table catalog.shops;
drop schema catalog;
