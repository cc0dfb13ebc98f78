-- description: Drop users.fullname, which display_name has replaced
-- phase: contract
-- scope: global
-- compatibility: contract_breaking
-- completes: 20250203090000, 20250210090000
-- rationale: Releases since 2.5 read and write display_name only, and the last 2.4 was stopped on 2025-03-17
-- data_preservation: every name is in display_name, copied by 20250210090000 and kept by the trigger since
-- tags: since-2.5
--
-- Release 3.

-- migrate:up
drop trigger users_sync_names on users;
drop function users_sync_names();
alter table users drop column fullname;

-- migrate:down
alter table users add column fullname text;
update users set fullname = display_name where fullname is null;
alter table users alter column fullname set not null;

create function users_sync_names() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    new.display_name := coalesce(new.display_name, new.fullname);
    new.fullname := coalesce(new.fullname, new.display_name);
  elsif new.display_name is distinct from old.display_name then
    new.fullname := coalesce(new.display_name, new.fullname);
  elsif new.fullname is distinct from old.fullname then
    new.display_name := new.fullname;
  end if;
  return new;
end
$$;

create trigger users_sync_names before insert or update on users
  for each row execute function users_sync_names();
