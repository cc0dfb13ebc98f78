-- Purpose: the journal, an append-only and hash-chained log of everything done to every target.
--
-- Runs with search_path set to the journal's own schema; `set search_path from current` ties each
-- function to it, so that nothing a migration does to its search_path can misplace a row.

-- migrate:up

create table journal (
    seq bigint primary key,
    format smallint not null,       -- of the row and of what its hash covers
    target text not null,           -- 'global', a tenant, or '@journal' for this schema itself
    ordinal bigint not null check (ordinal > 0),
    event text not null,            -- apply, revert, start, unit, fail, baseline, repair
    applies boolean,                -- from here on the version is applied (true), is not (false)
    version bigint,
    version_text text,
    id text,
    name text,
    direction text,                 -- up, down
    phase text,
    scope text,
    compatibility text,
    checksum text,                  -- sha256 of the migration file, hex
    outcome text not null,          -- started, done, failed
    started_at timestamptz not null,
    finished_at timestamptz not null,
    applied_by text not null,       -- database role
    os_user text,
    host text,
    git_commit text,
    ci_run text,
    engine text not null,
    run text not null,              -- one run of the binary
    plan text,                      -- sha256 of the plan the step belongs to
    sqlstate text,
    error text,
    detail jsonb,
    prev_hash text,
    hash text not null,
    unique (target, ordinal)
);

create sequence journal_seq owned by journal.seq;

create index journal_open on journal (target, version, ordinal) where applies is null;
create index journal_state on journal (target, version, ordinal desc) where applies is not null;

comment on table journal is 'what moonbird did here; append-only, each row hashes the one before it';

-- What a row's hash covers: all of it but seq and the hash itself. Times as microseconds, because text
-- depends on the session's settings. Its callers settle the search_path; without a clause of its own it
-- can be inlined.
create function journal_hash(r journal) returns text
language sql stable as $$
    select encode(sha256(convert_to(jsonb_build_array(
        r.format, r.target, r.ordinal, r.event, r.applies, r.version, r.version_text, r.id, r.name,
        r.direction, r.phase, r.scope, r.compatibility, r.checksum, r.outcome,
        (extract(epoch from r.started_at) * 1000000)::bigint,
        (extract(epoch from r.finished_at) * 1000000)::bigint,
        r.applied_by, r.os_user, r.host, r.git_commit, r.ci_run, r.engine, r.run, r.plan,
        r.sqlstate, r.error, r.detail, r.prev_hash)::text, 'UTF8')), 'hex')
$$;

-- The advisory lock that guards a target. Locks are per database already.
create function lock_key(p_target text) returns bigint
language sql stable set search_path from current as $$
    select hashtextextended('moonbird/' || current_schema() || '/' || p_target, 0)
$$;

-- The one door into a target: takes its lock without waiting (a blocked waiter would deadlock CREATE
-- INDEX CONCURRENTLY) until the transaction ends, then compares the chain's head with what the plan
-- was made from. Raises MB001 (locked) or MB002 (history moved on).
create function enter(p_target text, p_head bigint) returns void
language plpgsql set search_path from current as $$
declare
    v_head bigint;
begin
    if not pg_try_advisory_xact_lock(lock_key(p_target)) then
        raise exception using errcode = 'MB001',
            message = format('target "%s" is locked by another runner', p_target);
    end if;
    -- A statement of its own, so that its snapshot is younger than the lock.
    select coalesce(max(ordinal), 0) into v_head from journal where target = p_target;
    if v_head <> p_head then
        raise exception using errcode = 'MB002',
            message = format('the history of target "%s" moved on from %s to %s', p_target, p_head, v_head);
    end if;
end
$$;

-- Taken first in each transaction of a step that has several: the lease that holds the target's lock dies
-- with its client, but a statement already sent may still be running and commit. Who goes on with the step
-- waits until this lock is free.
create function enter_unit(p_target text) returns void
language plpgsql set search_path from current as $$
begin
    if not pg_try_advisory_xact_lock(lock_key('@unit/' || p_target)) then
        raise exception using errcode = 'MB001',
            message = format('a statement of an interrupted run still works on target "%s"', p_target);
    end if;
end
$$;

-- Appends one event to a target's chain and returns its ordinal, which must be the one expected: the
-- caller holds the target's lock, or the unique (target, ordinal) fences it out.
create function record(p_target text, p_ordinal bigint, p_event jsonb) returns bigint
language plpgsql set search_path from current as $$
declare
    r journal;
    v_last bigint;
    v_prev text;
begin
    select ordinal, hash into v_last, v_prev
        from journal where target = p_target order by ordinal desc limit 1;
    if coalesce(v_last, 0) + 1 <> p_ordinal then
        raise exception using errcode = 'MB002',
            message = format('the history of target "%s" moved on: event %s is not the next after %s',
                             p_target, p_ordinal, coalesce(v_last, 0));
    end if;
    r := jsonb_populate_record(null::journal, p_event);
    r.seq := nextval('journal_seq');
    r.format := 1;
    r.target := p_target;
    r.ordinal := p_ordinal;
    r.started_at := coalesce(r.started_at, transaction_timestamp());
    r.finished_at := clock_timestamp();
    r.applied_by := session_user;
    r.prev_hash := v_prev;
    r.hash := journal_hash(r);
    insert into journal select r.*;
    return p_ordinal;
end
$$;

-- Walks every chain (or one) and returns the rows that don't fit.
create function verify(p_target text default null)
returns table (target text, ordinal bigint, problem text)
language sql stable set search_path from current as $$
    with chain as (
        select j.target, j.ordinal, j.hash, j.prev_hash, journal_hash(j) as computed,
               lag(j.hash) over w as before, lag(j.ordinal) over w as before_ordinal
        from journal j
        where p_target is null or j.target = p_target
        window w as (partition by j.target order by j.ordinal)
    )
    select c.target, c.ordinal,
           case when c.computed <> c.hash then 'the row was changed after it was written'
                when c.ordinal <> coalesce(c.before_ordinal, 0) + 1
                    then 'the row before it was removed'
                else 'it does not follow from the row before it' end
    from chain c
    where c.computed <> c.hash
       or c.ordinal <> coalesce(c.before_ordinal, 0) + 1
       or c.prev_hash is distinct from c.before
    order by 1, 2
$$;

-- The last word on each version of each target. `applied_ordinal` is when it was applied, which a repair
-- that came later does not change: a down takes back in that order.
create view state as
    select distinct on (target, version)
           target, version, version_text, id, name, phase, scope, compatibility, checksum, applies,
           event, ordinal, started_at, finished_at, applied_by, engine,
           max(ordinal) filter (where event in ('apply', 'baseline') or detail->>'action' = 'mark applied')
               over (partition by target, version) as applied_ordinal
    from journal
    where applies is not null
    order by target, version, ordinal desc;

-- One hash of what is applied to a target, to be compared with the same of the files
-- (engine/core/fingerprint.h): equal means that there is nothing to do.
create function fingerprint(p_target text) returns text
language sql stable set search_path from current as $$
    select encode(sha256(convert_to(coalesce(string_agg(
        id || ' ' || checksum || E'\n', '' order by version), ''), 'UTF8')), 'hex')
    from (select distinct on (version) version, id, checksum, applies
          from journal where target = p_target and applies is not null
          order by version, ordinal desc) last
    where applies
$$;

create function refuse_change() returns trigger
language plpgsql set search_path from current as $$
begin
    raise exception using errcode = 'MB004',
        message = format('the journal is append-only: %s on "%s" is refused', tg_op, tg_table_name),
        hint = 'correct the history with `moonbird repair`, which adds an event';
end
$$;

create trigger journal_append_only before update or delete or truncate on journal
    for each statement execute function refuse_change();

-- migrate:down

drop function fingerprint(text);
drop function verify(text);
drop function record(text, bigint, jsonb);
drop function enter_unit(text);
drop function enter(text, bigint);
drop function lock_key(text);
drop view state;
drop function journal_hash(journal);
drop table journal;
drop function refuse_change();
