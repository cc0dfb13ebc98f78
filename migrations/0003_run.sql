-- Purpose: runs of a fleet, that is engine processes on any number of hosts that share the tenants of one command.
--
-- These rows say who does what next and when to stop. What is applied is said by the journal of each tenant's
-- database and by nothing else: a row that is lost or wrong here costs a second look at a tenant, never a second
-- migration.

-- migrate:up

create table run (
    name text primary key,
    plan text not null,             -- sha256 of the files and options: only who has the same may join
    newest bigint not null,         -- newest version among those files
    files int not null,
    status text not null default 'running'
        check (status in ('running', 'paused', 'halted', 'done', 'failed', 'cancelled')),
    reason text,                    -- why it does not run
    stages jsonb not null,          -- [{ scope, versions, waves: [{ name, count, max_failures, ... }] }]
    stage int not null default 0,   -- the one under way, from 1; 0: none was opened yet
    wave int not null default 0,    -- the one under way, from 1
    gate text check (gate in ('check', 'manual')),  -- what stands before the next wave
    gate_at timestamptz,            -- the wave has settled from here on
    gate_by text,                   -- the worker that asks whether all is well
    settings jsonb not null,        -- soak_ms, health, manual, attempts: as its maker had them
    command text not null,
    engine text not null,
    host text,
    made_by text not null default session_user,
    made_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz
);

-- A worker is a process. Its lease stands for all items that it holds.
create table run_worker (
    run text not null references run on delete cascade,
    owner text not null,
    host text,
    pid int,
    joined_at timestamptz not null default clock_timestamp(),
    lease_until timestamptz not null,
    primary key (run, owner)
);

create sequence run_finished;

create table run_item (
    run text not null references run on delete cascade,
    stage int not null,
    place int not null,             -- the order within the stage; waves one after the other
    wave int not null,              -- 0: settled when the stage was opened
    tenant text not null,           -- or 'global'
    state text not null check (state in ('waiting', 'running', 'done', 'failed', 'pinned', 'ahead')),
    owner text,                     -- who has it, or had it last
    claims int not null default 0,
    attempts int not null default 0,
    not_before timestamptz,
    started_at timestamptz,
    duration_ms bigint,
    finished bigint,                -- the order in which items of all workers ended
    steps int,
    code text,
    sqlstate text,
    migration text,
    file text,
    line int,
    kind text,                      -- what makes two errors the same one
    error text,
    primary key (run, stage, place)
);

create index run_item_waiting on run_item (run, stage, wave, attempts, place) where state = 'waiting';
create index run_item_running on run_item (run, stage) where state = 'running';
create index run_item_failed on run_item (run) where state = 'failed';
create index run_item_ended on run_item (run, finished desc) where finished is not null;

-- Whether items of the stage's waves up to this one are still to be done or under way.
create function run_open(p_run text, p_stage int, p_wave int) returns boolean
language sql stable set search_path from current as $$
    select exists (select from run_item where run = p_run and stage = p_stage and state = 'waiting' and wave <= p_wave)
        or exists (select from run_item where run = p_run and stage = p_stage and state = 'running')
$$;

-- Why a run is to stop after the failures it has by now; null: it goes on.
create function run_over_budget(r run) returns text
language plpgsql stable set search_path from current as $$
declare
    v_wave jsonb := r.stages -> (r.stage - 1) -> 'waves' -> (r.wave - 1);
    v_max int := v_wave ->> 'max_failures';
    v_row int := v_wave ->> 'max_consecutive';
    v_same int := v_wave ->> 'same_error';
    v_count int;
begin
    select count(*) into v_count from run_item where run = r.name and state = 'failed';
    if v_count > v_max then
        return case when r.stages -> (r.stage - 1) ->> 'scope' = 'global' then 'the global target failed'
            else format('more than %s failed', v_max) end;
    end if;
    if v_row is not null then
        select count(*) filter (where state = 'failed') into v_count
        from (select state from run_item where run = r.name and finished is not null
              order by finished desc limit v_row) last;
        if v_count >= v_row then
            return format('%s failed in a row', v_row);
        end if;
    end if;
    if v_same is not null then
        select max(n) into v_count
        from (select count(*) as n from run_item where run = r.name and stage = r.stage and wave = r.wave
                and state = 'failed' group by kind) kinds;
        if v_count >= v_same then
            return format('%s failed with the same error in the canary', v_count);
        end if;
    end if;
    return null;
end
$$;

-- One turn of a worker: renews its lease, takes what became of its items, gives it new ones. Failures of all
-- workers are counted one after the other (the lock on the run), so that none slips through between two counts.
create function run_turn(p_run text, p_owner text, p_lease_ms int, p_stage int, p_wave int, p_want int,
                         p_results jsonb) returns jsonb
language plpgsql set search_path from current as $$
declare
    r run;
    x record;
    v_items jsonb := '[]';
    v_more jsonb;
    v_reason text;
    v_next int;
begin
    if jsonb_array_length(p_results) = 0 then
        -- Only the lease and claims: lost in a crash of the server, they are made again.
        perform set_config('synchronous_commit', 'off', true);
    end if;
    if jsonb_path_exists(p_results, '$[*] ? (@.state == "failed")') then
        perform from run where name = p_run for update;
    end if;
    update run_worker set lease_until = clock_timestamp() + p_lease_ms * interval '1 millisecond'
        where run = p_run and owner = p_owner;
    for x in
        select e.* from jsonb_array_elements(p_results) with ordinality j(value, n),
            jsonb_to_record(j.value) as e(stage int, place int, state text, attempts int, delay_ms int, steps int,
                ms bigint, code text, sqlstate text, migration text, file text, line int, kind text, error text)
        order by j.n
    loop
        -- An item that was given to another worker meanwhile is that one's to tell about.
        update run_item i set
            state = x.state, owner = case when x.state <> 'waiting' then p_owner end,
            attempts = coalesce(x.attempts, i.attempts), steps = x.steps, duration_ms = x.ms,
            not_before = clock_timestamp() + x.delay_ms * interval '1 millisecond',
            code = x.code, sqlstate = x.sqlstate, migration = x.migration, file = x.file, line = x.line, kind = x.kind,
            error = x.error,
            finished = case when x.state in ('done', 'failed') then nextval('run_finished') end
        where i.run = p_run and i.stage = x.stage and i.place = x.place and i.state = 'running' and i.owner = p_owner;
    end loop;
    select * into r from run where name = p_run;
    if not found then
        return null;
    end if;
    if r.status in ('running', 'paused') and jsonb_path_exists(p_results, '$[*] ? (@.state == "failed")') then
        v_reason := run_over_budget(r);
        if v_reason is not null then
            update run set status = 'halted', reason = v_reason, ended_at = clock_timestamp() where name = p_run
                returning * into r;
        end if;
    end if;
    if r.status = 'running' and r.gate is null and p_want > 0 and r.stage = p_stage and r.wave = p_wave then
        with free as (
            select stage, place from run_item
            where run = p_run and stage = p_stage and state = 'waiting' and wave <= p_wave
              and (not_before is null or not_before <= clock_timestamp())
            order by wave, attempts, place limit p_want for update skip locked),
        mine as (
            update run_item i set state = 'running', owner = p_owner, claims = i.claims + 1,
                started_at = clock_timestamp()
            from free where i.run = p_run and i.stage = free.stage and i.place = free.place
            returning i.place, i.tenant, i.attempts, i.claims)
        select coalesce(jsonb_agg(to_jsonb(mine) order by place), '[]') into v_items from mine;
        if jsonb_array_length(v_items) < p_want then
            -- What a worker holds whose lease ran out is free again.
            with free as (
                select stage, place from run_item
                where run = p_run and stage = p_stage and state = 'running' and owner not in (
                    select owner from run_worker where run = p_run and lease_until > clock_timestamp())
                order by place limit p_want - jsonb_array_length(v_items) for update skip locked),
            mine as (
                update run_item i set owner = p_owner, claims = i.claims + 1, started_at = clock_timestamp()
                from free where i.run = p_run and i.stage = free.stage and i.place = free.place
                returning i.place, i.tenant, i.attempts, i.claims)
            select coalesce(jsonb_agg(to_jsonb(mine) order by place), '[]') into v_more from mine;
            v_items := v_items || v_more;
        end if;
    end if;
    if jsonb_array_length(v_items) = 0 then
        select greatest(0, extract(epoch from min(not_before) - clock_timestamp()) * 1000)::int into v_next
        from run_item where run = p_run and stage = r.stage and state = 'waiting' and wave <= r.wave;
    end if;
    return jsonb_strip_nulls(jsonb_build_object('status', r.status, 'reason', r.reason, 'stage', r.stage,
        'wave', r.wave, 'gate', r.gate,
        'gate_ms', greatest(0, extract(epoch from r.gate_at - clock_timestamp()) * 1000)::bigint,
        'stages', jsonb_array_length(r.stages),
        'waves', coalesce(jsonb_array_length(r.stages -> (r.stage - 1) -> 'waves'), 0),
        'items', v_items, 'next_ms', v_next,
        'open', jsonb_array_length(v_items) > 0 or run_open(p_run, r.stage, r.wave)));
end
$$;

-- The first stages of a list.
create function run_head(p_stages jsonb, p_count int) returns jsonb
language sql immutable set search_path from current as $$
    select coalesce(jsonb_agg(value order by n), '[]') from jsonb_array_elements(p_stages) with ordinality j(value, n)
    where n <= p_count
$$;

-- Opens the stage after p_stage with its items; false when another worker was faster. p_tail is that stage and those
-- behind it, planned anew: what is global may have made tenants.
create function run_open_stage(p_run text, p_stage int, p_tail jsonb, p_waves jsonb, p_items jsonb) returns boolean
language plpgsql set search_path from current as $$
declare
    v_max int;
    v_count int;
begin
    update run set stage = p_stage + 1, wave = least(1, jsonb_array_length(p_waves)), gate = null, gate_at = null,
        gate_by = null, stages = run_head(stages, p_stage) || jsonb_set(p_tail, '{0,waves}', p_waves)
    where name = p_run and stage = p_stage and status = 'running' and gate is null
      and wave >= coalesce(jsonb_array_length(stages -> (p_stage - 1) -> 'waves'), 0)
      and not run_open(p_run, p_stage, wave);
    if not found then
        return false;
    end if;
    insert into run_item (run, stage, place, wave, tenant, state, code, migration, error, finished)
        select p_run, p_stage + 1, j.n, e.wave, e.tenant, e.state, e.code, e.migration, e.error,
               case when e.state = 'failed' then nextval('run_finished') end
        from jsonb_array_elements(p_items) with ordinality j(value, n),
            jsonb_to_record(j.value) as e(wave int, tenant text, state text, code text, migration text, error text)
        on conflict do nothing;
    -- Tenants that can't be begun as they are count against the budget of the whole run, which its last wave has.
    v_max := p_waves -> -1 ->> 'max_failures';
    select count(*) into v_count from run_item where run = p_run and state = 'failed';
    if v_count > v_max and exists (select from run_item where run = p_run and stage = p_stage + 1 and wave = 0
            and state = 'failed') then
        update run set status = 'halted', ended_at = clock_timestamp(), reason = case when v_max = 0 then
            'tenants failed before the first was begun'
            else format('more than %s failed before the first was begun', v_max) end
        where name = p_run;
    end if;
    return true;
end
$$;

-- Goes from a wave that is over towards the next: a gate first, where there is one.
create function run_next_wave(p_run text, p_stage int, p_wave int) returns boolean
language plpgsql set search_path from current as $$
declare
    r run;
begin
    select * into r from run where name = p_run and stage = p_stage and wave = p_wave and status = 'running'
        and gate is null for update;
    if not found or run_open(p_run, p_stage, p_wave)
        or p_wave >= jsonb_array_length(r.stages -> (p_stage - 1) -> 'waves') then
        return false;
    end if;
    if (r.settings ->> 'soak_ms')::bigint > 0 or (r.settings ->> 'health')::boolean
        or (r.settings ->> 'manual')::boolean then
        update run set gate = 'check', gate_by = null,
            gate_at = clock_timestamp() + (r.settings ->> 'soak_ms')::bigint * interval '1 millisecond'
        where name = p_run;
    else
        update run set wave = wave + 1 where name = p_run;
    end if;
    return true;
end
$$;

-- Gives the check of the gate to one worker.
create function run_take_gate(p_run text, p_stage int, p_wave int, p_owner text) returns boolean
language sql set search_path from current as $$
    with mine as (
        update run set gate_by = p_owner
        where name = p_run and stage = p_stage and wave = p_wave and status = 'running' and gate = 'check'
          and gate_at <= clock_timestamp()
          and (gate_by is null or gate_by = p_owner or gate_by not in (
                select owner from run_worker where run = p_run and lease_until > clock_timestamp()))
        returning 1)
    select exists (select from mine)
$$;

-- What the check said: the next wave, a wait for a person, or a halt with the reason.
create function run_pass_gate(p_run text, p_stage int, p_wave int, p_owner text, p_refusal text) returns boolean
language sql set search_path from current as $$
    with mine as (
        update run set
            gate_by = null,
            status = case when p_refusal is not null then 'halted'
                when (settings ->> 'manual')::boolean then 'paused' else 'running' end,
            reason = case when p_refusal is not null then p_refusal
                when (settings ->> 'manual')::boolean then format('%s is done; the next waits for a person',
                    stages -> (stage - 1) -> 'waves' -> (wave - 1) ->> 'name') end,
            ended_at = case when p_refusal is not null then clock_timestamp() end,
            wave = case when p_refusal is null and not (settings ->> 'manual')::boolean then wave + 1 else wave end,
            gate = case when p_refusal is not null then gate when (settings ->> 'manual')::boolean then 'manual' end
        where name = p_run and stage = p_stage and wave = p_wave and status = 'running' and gate = 'check'
          and gate_by = p_owner
        returning 1)
    select exists (select from mine)
$$;

-- Ends a run none of whose items is left to do.
create function run_end(p_run text, p_stage int, p_reason text) returns boolean
language sql set search_path from current as $$
    with mine as (
        update run r set
            status = case when exists (select from run_item i where i.run = r.name and i.state in ('failed', 'ahead'))
                then 'failed' else 'done' end,
            stages = case when p_reason is null then run_head(stages, p_stage) else stages end,
            reason = p_reason, ended_at = clock_timestamp()
        where name = p_run and stage = p_stage and status = 'running' and gate is null
          and wave >= coalesce(jsonb_array_length(stages -> (p_stage - 1) -> 'waves'), 0)
          and not run_open(p_run, p_stage, wave)
        returning 1)
    select exists (select from mine)
$$;

-- A person lets a run go on: past the gate it waits at, or with what failed once more.
create function run_resume(p_run text) returns int
language plpgsql set search_path from current as $$
declare
    r run;
    v_count int := 0;
    v_stage int;
begin
    select * into r from run where name = p_run and status in ('paused', 'halted', 'failed') for update;
    if not found then
        return null;
    end if;
    if r.status <> 'paused' then
        with again as (
            update run_item set state = 'waiting', owner = null, attempts = 0, not_before = null, finished = null,
                code = null, sqlstate = null, migration = null, file = null, line = null, kind = null, error = null
            where run = p_run and state = 'failed' and wave > 0
            returning stage)
        select count(*), min(stage) into v_count, v_stage from again;
    end if;
    v_stage := least(r.stage, v_stage);
    update run set status = 'running', reason = null, ended_at = null, stage = v_stage,
        wave = case when v_stage < r.stage then jsonb_array_length(stages -> (v_stage - 1) -> 'waves')
            when gate = 'manual' then wave + 1 else wave end,
        gate = case when v_stage < r.stage then null else nullif(gate, 'manual') end, gate_by = null
    where name = p_run;
    return v_count;
end
$$;

-- migrate:down

drop function run_resume(text);
drop function run_end(text, int, text);
drop function run_pass_gate(text, int, int, text, text);
drop function run_take_gate(text, int, int, text);
drop function run_next_wave(text, int, int);
drop function run_open_stage(text, int, jsonb, jsonb, jsonb);
drop function run_head(jsonb, int);
drop function run_turn(text, text, int, int, int, int, jsonb);
drop function run_over_budget(run);
drop function run_open(text, int, int);
drop table run_item;
drop sequence run_finished;
drop table run_worker;
drop table run;
