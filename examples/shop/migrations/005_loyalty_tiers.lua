-- A tier for each customer, by what they have spent. The shop's own rule, not SQL's.
local TIERS = {
  { name = "gold", from_cents = 6000000 },
  { name = "silver", from_cents = 2500000 },
}

local function tier_of(spent)
  for _, tier in ipairs(TIERS) do
    if spent >= tier.from_cents then
      return tier.name
    end
  end
  return "bronze"
end

return {
  description = "Loyalty tiers, from the orders so far",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",
  data_preservation = "every tier was bronze",
  timeouts = { lock = "2s" },

  up = function(db)
    local spent = {}
    for order in db:rows [[select customer_id, total_cents from "order"]] do
      spent[order.customer_id] = (spent[order.customer_id] or 0) + order.total_cents
    end

    local count = 0
    for customer in db:rows "select id, name from customer order by id" do
      local tier = tier_of(spent[customer.id] or 0)
      db:exec("update customer set tier = $1 where id = $2", tier, customer.id)
      count = count + 1
    end
    db:log("%d customers have a tier", count)
  end,

  down = "update customer set tier = 'bronze' where tier <> 'bronze'",
}
