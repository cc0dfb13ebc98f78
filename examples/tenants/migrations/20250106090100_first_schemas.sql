-- description: the schemas of the first four shops
-- owner: platform
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
-- migrate:up
create schema shop_ours;
create schema shop_bakery;
create schema shop_bikes;
create schema shop_books;

-- migrate:down
drop schema shop_books;
drop schema shop_bikes;
drop schema shop_bakery;
drop schema shop_ours;
