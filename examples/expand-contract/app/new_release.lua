--- What release 2.5 does: it knows display_name only. `moonbird run app/new_release.lua MAIL NAME`
-- writes the name of a user and prints the names it sees.
return function(db, mail, name)
  if mail then
    db:exec("insert into users (mail, display_name) values ($1, $2) on conflict (mail) do update "
      .. "set display_name = excluded.display_name", mail, name)
  end
  for user in db:rows("select mail, display_name from users order by mail") do
    print(user.mail, user.display_name or "?")
  end
end
