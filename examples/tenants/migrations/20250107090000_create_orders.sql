-- description: the orders of one shop
-- owner: shop
-- phase: expand
-- scope: tenant
-- compatibility: backward_compatible
-- migrate:up
create table orders (
  id bigint generated always as identity primary key,
  product_id bigint not null references products (id),
  total numeric not null
);
create index orders_product_id on orders (product_id);

-- migrate:down
drop table orders;
