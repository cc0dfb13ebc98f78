-- description: The books of the library, each with its shelf mark.
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- migrate:up
create table book (
    id bigint generated always as identity primary key,
    shelf_mark text not null unique,
    title text not null check (title <> '')
);
comment on table book is 'one row for each copy on the shelves';

-- migrate:down
drop table book;
