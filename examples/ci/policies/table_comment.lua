-- A rule of this project: whoever reads the database later must find out what a table is for.
return {
  id = "table-comment",
  group = "project",
  severity = "error",
  title = "a new table says what it is for",
  explain = [[
The schema outlives everybody who knows it. A sentence in the database is found by the next person, by psql's
\d+ and by every tool that draws diagrams. Write it in the migration that makes the table:

  create table book (...);
  comment on table book is 'one row for each copy on the shelves';]],
  fix = "add `comment on table ... is '...'` to the migration",
  check = function(ctx)
    local commented = {}
    for _, statement in ipairs(ctx.statements) do
      if statement.verb == "comment" and statement.kind == "table" then
        commented[statement.name] = true
      end
    end
    for _, statement in ipairs(ctx.statements) do
      if statement.verb == "create" and statement.kind == "table" and not commented[statement.name] then
        ctx:report(("the table \"%s\" has no comment"):format(statement.name), { at = statement })
      end
    end
  end,
}
