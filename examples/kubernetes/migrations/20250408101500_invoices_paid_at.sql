-- description: when an invoice was paid
-- scope: tenant

-- migrate:up
alter table invoices add column paid_at timestamptz;

-- migrate:down
alter table invoices drop column paid_at;
