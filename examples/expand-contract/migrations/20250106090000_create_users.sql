-- description: People who may log in, with the name they go by
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create table users (
  id bigint generated always as identity primary key,
  mail text not null unique,
  fullname text not null
);

-- migrate:down
drop table users;
