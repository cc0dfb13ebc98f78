--- What release 2.3 does: it knows fullname only. `moonbird run app/old_release.lua MAIL NAME`
-- writes the name of a user and prints the names it sees.
return function(db, mail, name)
  if mail then
    db:exec("insert into users (mail, fullname) values ($1, $2) on conflict (mail) do update "
      .. "set fullname = excluded.fullname", mail, name)
  end
  for user in db:rows("select mail, fullname from users order by mail") do
    print(user.mail, user.fullname)
  end
end
