-- Release 2. The trigger keeps the names of rows that are written; this copies those of all others. Each batch
-- commits by itself, so nobody waits for more than a thousand rows, and a run that is interrupted goes on where it
-- was.
local SIZE = 1000

local function in_batches(db, sql)
  local newest = db:value("select coalesce(max(id), 0) from users")
  for first = 1, newest, SIZE do
    db:exec(sql, first, first + SIZE - 1)
  end
end

return {
  description = "Copy the names of users who were there before display_name",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",
  data_preservation = "fullname stays as it is; display_name was empty",
  transaction = false,

  up = function(db)
    in_batches(db, "update users set display_name = fullname where id between $1 and $2 and display_name is null")
  end,

  down = function(db)
    in_batches(db, "update users set display_name = null where id between $1 and $2 and display_name = fullname")
  end,
}
