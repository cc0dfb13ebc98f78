-- One partition a year; the loop is why this is Lua.
local FIRST, LAST = 2025, 2027

return {
  description = "Who has which book, and until when; one partition for each year.",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",

  up = function(db)
    db:exec [[
      create table loan (
        book_id bigint not null references book,
        reader text not null,
        since date not null,
        due date not null,
        primary key (book_id, since),
        check (due > since)
      ) partition by range (since);
      comment on table loan is 'a book that was handed out';
    ]]
    for year = FIRST, LAST do
      local name = db:ident("loan_" .. year)
      db:exec(("create table %s partition of loan for values from (%s) to (%s)"):format(name,
        db:literal(year .. "-01-01"), db:literal((year + 1) .. "-01-01")))
      db:exec(("comment on table %s is %s"):format(name, db:literal("loans since a day in " .. year)))
    end
  end,

  down = function(db)
    db:exec "drop table loan"
  end,
}
