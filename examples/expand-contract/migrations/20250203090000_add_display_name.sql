-- description: Give users a display_name beside fullname, which it will replace
-- phase: expand
-- scope: global
-- compatibility: backward_compatible
--
-- Release 1. Two releases run from here on: one writes fullname, one display_name. The trigger writes the other of
-- the two, so that neither sees a name that the other does not.

-- migrate:up
alter table users add column display_name text;

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

-- migrate:down
drop trigger users_sync_names on users;
drop function users_sync_names();
alter table users drop column display_name;
