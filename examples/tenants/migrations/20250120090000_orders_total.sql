-- description: find the large orders of a shop
-- owner: shop
-- phase: expand
-- scope: tenant
-- compatibility: backward_compatible
-- migrate:up transaction:false
create index concurrently orders_total on orders (total);

-- migrate:down transaction:false
drop index concurrently orders_total;
