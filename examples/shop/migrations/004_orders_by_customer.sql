-- description: Find a customer's orders, without a lock that stops the shop
-- phase: expand
-- scope: global
-- compatibility: backward_compatible

-- CREATE INDEX CONCURRENTLY can't run in a transaction. If moonbird is killed in the middle, its next run
-- finds the half-made index, removes it and builds it again.

-- migrate:up transaction:false
create index concurrently order_by_customer on "order" (customer_id, placed_at desc);

-- migrate:down transaction:false
drop index concurrently if exists order_by_customer;
