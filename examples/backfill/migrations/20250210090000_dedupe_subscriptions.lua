-- Dedupe before a unique index: of rows with the same address the oldest stays. The index on lower(email), id is what
-- finds the others of each row; without it every batch would read the table.
return {
  description = "Delete subscriptions whose address an older one has",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",
  data_preservation = "the oldest subscription of each address stays",
  irreversible = "the rows are gone",
  backfill = {
    table = "subscription",
    where = [[exists (select from subscription o
      where lower(o.email) = lower(subscription.email) and o.id < subscription.id)]],
    batch = function(db, lo, hi)
      return db:exec([[
        delete from subscription s where s.id between $1 and $2 and exists (
          select from subscription o where lower(o.email) = lower(s.email) and o.id < s.id)]], lo, hi)
    end,
  },
}
