-- Purpose: the state of backfills. A batch moves its chunk's cursor in the transaction that changes the rows,
-- so that both happen or neither does; docs/internals/backfill.md has the proof.
--
-- Keys are JSON arrays of the key's columns ([42], ["eu", 7]): their text depends on no setting of a session.
-- Where a table has no key they hold a ctid ("(12,0)").

-- migrate:up

-- One row for each backfill of each target. Batches read it and do not write it: workers would wait for each
-- other there until their commits are on the disk.
create table backfill (
    target text not null,
    version bigint not null,
    id text not null,                   -- of the migration
    mode text not null check (mode in ('set', 'rows', 'batch')),
    code text not null,                 -- sha256 of what it does to a row
    relation text not null,             -- the table as named in the migration
    key_columns text[] not null,        -- empty: no key, ctid ranges
    key_types text[] not null,
    status text not null check (status in ('running', 'paused', 'done', 'failed', 'cancelled')),
    want text not null default 'run' check (want in ('run', 'pause', 'cancel')),
    want_by text,                       -- who said so
    limits jsonb not null default '{}', -- options that other terminals changed
    throttle jsonb,                     -- what the throttle says while it runs: level, reason, lag_bytes
    pass integer not null default 1,    -- the table is walked again where rows were left
    rows_estimated bigint not null default 0,
    durable boolean not null default false,
    started_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    run text not null,                  -- the run that worked on it last, and where
    host text,
    os_user text,
    sqlstate text,
    error text,
    primary key (target, version)
);

comment on table backfill is 'backfills and what they are to do: want run, pause or cancel';

-- A range of keys, above lo up to hi, done up to cur. Its row lock is the lease: it is held for one batch and
-- ends with the transaction, however that ends.
create table backfill_chunk (
    target text not null,
    version bigint not null,
    pass integer not null,
    ordinal integer not null,
    relation text not null,             -- the leaf, quoted
    lo jsonb,                           -- null: from the beginning
    hi jsonb not null,
    cur jsonb,                          -- everything up to here is done; begins as lo
    done boolean not null default false,
    rows_seen bigint not null default 0,
    rows_changed bigint not null default 0,
    rows_skipped bigint not null default 0,
    batches bigint not null default 0,
    busy_ms float8 not null default 0,
    batch integer,                      -- rows of the last batch
    failures integer not null default 0, -- since the last batch that worked
    next_try timestamptz not null default '-infinity',
    worker text,                        -- a hint who is at it; the row lock decides
    updated_at timestamptz,
    primary key (target, version, pass, ordinal),
    foreign key (target, version) references backfill on delete cascade
) with (fillfactor = 40);               -- a row is updated by each batch: its new version fits beside it

create table backfill_error (
    target text not null,
    version bigint not null,
    relation text not null,
    key jsonb not null,
    sqlstate text,
    message text not null,
    tries integer not null default 1,
    at timestamptz not null default clock_timestamp(),
    primary key (target, version, relation, key),
    foreign key (target, version) references backfill on delete cascade
);

comment on table backfill_error is 'rows that a backfill could not change and passed over';

-- Begins a batch: locks the chunk without waiting and compares its cursor with the one the batch was made for.
-- MB005: somebody else is at the chunk, or has moved it; MB006: somebody wants the backfill to stop, or goes on with
-- other code (p_code is the worker's). Gives the limits, so that every batch sees them.
create function backfill_enter(p_target text, p_version bigint, p_pass integer, p_ordinal integer, p_cur jsonb,
                               p_code text)
returns jsonb
language plpgsql set search_path from current as $$
declare
    v_want text;
    v_code text;
    v_limits jsonb;
begin
    perform from backfill_chunk
        where target = p_target and version = p_version and pass = p_pass and ordinal = p_ordinal
          and not done and cur is not distinct from p_cur
        for update skip locked;
    if not found then
        raise exception using errcode = 'MB005', message = 'another worker is at this chunk, or has moved it';
    end if;
    select want, code, limits into v_want, v_code, v_limits from backfill where target = p_target and version = p_version;
    if v_want <> 'run' then
        raise exception using errcode = 'MB006', message = format('the backfill is to %s', v_want);
    elsif v_code <> p_code then
        raise exception using errcode = 'MB006', message = 'another run works on the backfill with other code';
    end if;
    return v_limits;
end
$$;

-- Rows looked at, changed and so on, over all passes; `left_rows` is an estimate. `share` is of this pass.
create view backfill_progress as
    select b.target, b.version, b.id, b.mode, b.relation, b.status, b.want, b.want_by, b.limits, b.throttle, b.pass, b.rows_estimated,
           b.started_at, b.updated_at, b.finished_at, b.run, b.host, b.os_user, b.sqlstate, b.error,
           coalesce(c.rows_seen, 0)::bigint as rows_seen, coalesce(c.rows_changed, 0)::bigint as rows_changed,
           coalesce(c.rows_skipped, 0)::bigint as rows_skipped, coalesce(c.batches, 0)::bigint as batches,
           coalesce(c.pass_skipped, 0)::bigint as pass_skipped, coalesce(c.busy_ms, 0)::float8 as busy_ms, coalesce(c.chunks, 0)::integer as chunks,
           coalesce(c.chunks_done, 0)::integer as chunks_done, c.last_batch_at, c.last_batch as batch,
           (select count(*) from backfill_error e where e.target = b.target and e.version = b.version)::integer
               as errors,
           case when b.status = 'done' then 1.0
                when c.chunks is null or c.chunks = 0 then 0.0
                when c.chunks_done = c.chunks then 0.9999
                when b.rows_estimated > 0 then
                    least(0.9999, greatest(c.pass_seen::float8 / b.rows_estimated,
                                           c.chunks_done::float8 / c.chunks))
                else c.chunks_done::float8 / c.chunks end::float8 as share
    from backfill b left join lateral (
        select sum(k.rows_seen) as rows_seen, sum(k.rows_changed) as rows_changed,
               sum(k.rows_skipped) as rows_skipped, sum(k.batches) as batches, sum(k.busy_ms) as busy_ms,
               count(*) filter (where k.pass = b.pass) as chunks,
               count(*) filter (where k.pass = b.pass and k.done) as chunks_done,
               sum(k.rows_seen) filter (where k.pass = b.pass) as pass_seen,
               sum(k.rows_skipped) filter (where k.pass = b.pass) as pass_skipped,
               max(k.updated_at) as last_batch_at,
               (array_agg(k.batch order by k.updated_at desc) filter (where k.batch is not null))[1] as last_batch
        from backfill_chunk k where k.target = b.target and k.version = b.version) c on true;

-- migrate:down

drop view backfill_progress;
drop function backfill_enter(text, bigint, integer, integer, jsonb, text);
drop table backfill_error;
drop table backfill_chunk;
drop table backfill;
