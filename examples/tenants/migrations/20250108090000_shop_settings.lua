-- What differs from shop to shop is looked up in the catalog, by the tenant's name.
return {
  description = "currency and tax of one shop",
  owner = "shop",
  phase = "expand",
  scope = "tenant",
  compatibility = "backward_compatible",

  up = function(db)
    db:exec "create table settings (key text primary key, value text not null)"
    db:exec([[insert into settings (key, value)
      select 'currency', currency from shops where name = $1
      union all select 'tax', tax::text from shops where name = $1]], db.target.name)
  end,

  down = function(db)
    db:exec "drop table settings"
  end,
}
