-- Split a column: the trigger fills the new columns of rows that are written from now on, the backfill those of the
-- rows that are there. The trigger comes first, in `up`: no row can fall between the two.
return {
  description = "Split customer.full_name into given_name and family_name",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",
  data_preservation = "full_name stays as it is",

  up = [[
    alter table customer add column given_name text, add column family_name text;

    create function customer_split_name() returns trigger language plpgsql as $$
    begin
      new.given_name := split_part(new.full_name, ' ', 1);
      new.family_name := substr(new.full_name, length(split_part(new.full_name, ' ', 1)) + 2);
      return new;
    end
    $$;

    create trigger customer_split_name before insert or update of full_name on customer
      for each row execute function customer_split_name();
  ]],

  backfill = {
    table = "customer",
    where = "given_name is null",
    set = [[given_name = split_part(full_name, ' ', 1),
      family_name = substr(full_name, length(split_part(full_name, ' ', 1)) + 2)]],
  },

  down = [[
    drop trigger customer_split_name on customer;
    drop function customer_split_name();
    alter table customer drop column given_name, drop column family_name;
  ]],
}
