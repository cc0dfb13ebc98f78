-- Every product gets a readable address: "Café crème (1 kg)" becomes "cafe-creme-1-kg". Computing that in SQL
-- would need an extension; here it is a dozen lines of Lua in lib/slug.lua.
local slug = require "lib.slug"

return {
  description = "Readable addresses for the products",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",
  data_preservation = "slug was empty",

  up = function(db)
    local taken = {}
    for product in db:rows "select id, name from product order by id" do
      local name = slug.of(product.name)
      taken[name] = (taken[name] or 0) + 1
      if taken[name] > 1 then
        name = ("%s-%d"):format(name, taken[name])
      end
      db:exec("update product set slug = $1 where id = $2", name, product.id)
    end
  end,

  down = "update product set slug = null where slug is not null",
}
