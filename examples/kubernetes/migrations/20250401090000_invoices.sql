-- description: what a tenant has to pay
-- scope: tenant

-- migrate:up
create table invoices (
    id bigint generated always as identity primary key,
    number text not null,
    cents bigint not null check (cents >= 0),
    issued_at timestamptz not null default now()
);

-- migrate:down
drop table invoices;
