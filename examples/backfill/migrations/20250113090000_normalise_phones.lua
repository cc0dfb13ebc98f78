-- Normalise: what a column should have looked like is computed in Lua, row by row.
local function normalise(phone)
  local digits = phone:gsub("%D", "")
  return "+49" .. digits:gsub("^0", "")
end

return {
  description = "Write phone numbers as +49 and digits",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",
  data_preservation = "the digits stay as they are",
  irreversible = "how a number was written is not kept",
  backfill = {
    table = "customer",
    where = "phone not like '+%'",
    columns = { "phone" },
    transform = function(row)
      return { phone = normalise(row.phone) }
    end,
  },
}
