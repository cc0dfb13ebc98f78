-- description: our own shop and the first three
-- owner: platform
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
-- migrate:up
insert into catalog.shops (name, currency, tax) values
  ('shop_ours', 'EUR', 0.20),
  ('shop_bakery', 'EUR', 0.10),
  ('shop_bikes', 'CHF', 0.081),
  ('shop_books', 'USD', 0);
insert into catalog.products (name) values ('bread'), ('bicycle'), ('novel');

-- migrate:down
delete from catalog.products where name in ('bread', 'bicycle', 'novel');
delete from catalog.shops where name in ('shop_ours', 'shop_bakery', 'shop_bikes', 'shop_books');
