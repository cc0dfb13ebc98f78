-- A shop system for many shops. What all shops share is in the schema "catalog"; what one shop has is in a schema of
-- its own, "shop_NAME".
return {
  tenants = {
    -- Every such schema is a tenant. A shop that is founded later is made with `moonbird tenant add shop_NAME`.
    source = tenants.schemas { like = [[shop\_%]] },
    -- Every shop sees the catalog without naming it.
    shared = { "catalog" },
    -- `deploy` and `up` begin with our own shop, then a third, then all others; between two waves they ask how it went.
    canary = { "shop_ours", "33%" },
    health = "select not exists (select from catalog.alarms where open)",
    jobs = 8,
  },
}
