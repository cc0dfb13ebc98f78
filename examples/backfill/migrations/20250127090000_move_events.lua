-- Move a table: rows are copied batch by batch, and the trigger copies what is written meanwhile. `on conflict` lets
-- the two meet at the same row. Readers go over to the new table when the backfill is done.
return {
  description = "Copy event into history.event, where readers will look for it",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",
  data_preservation = "event stays as it is; history.event is a copy",

  up = [[
    create schema history;
    create table history.event (like event including all);

    create function event_copy() returns trigger language plpgsql as $$
    begin
      if tg_op = 'DELETE' then
        delete from history.event where id = old.id;
        return old;
      end if;
      insert into history.event values (new.*)
        on conflict (id) do update set at = excluded.at, what = excluded.what;
      return new;
    end
    $$;

    create trigger event_copy after insert or update or delete on event
      for each row execute function event_copy();
  ]],

  backfill = {
    table = "event",
    -- Locks the rows, so that nobody changes or deletes one between the reading and the writing.
    batch = function(db, lo, hi)
      return db:exec([[
        insert into history.event select * from event where id between $1 and $2 for update
        on conflict (id) do nothing]], lo, hi)
    end,
  },

  down = [[
    drop trigger event_copy on event;
    drop function event_copy();
    drop schema history cascade;
  ]],
}
