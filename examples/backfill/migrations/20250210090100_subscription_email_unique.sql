-- description: An address subscribes once
-- phase: contract
-- scope: global
-- compatibility: backward_compatible
-- completes: 20250210090000
-- rationale: The page has refused second subscriptions since 2025-01-15
-- data_preservation: no row is changed
--
-- migrate:up transaction:false
create unique index concurrently subscription_email on subscription (lower(email));

-- migrate:down transaction:false
drop index concurrently subscription_email;
