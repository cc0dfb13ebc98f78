-- Delete old rows. The date is written out: with now() rows would grow old while it runs.
return {
  description = "Delete events of 2023",
  phase = "expand",
  scope = "global",
  compatibility = "backward_compatible",
  data_preservation = "the yearly report of 2023 has been made from them, nothing else reads them",
  irreversible = "the rows are gone",
  backfill = {
    table = "event",
    where = "at < '2024-01-01 00:00 UTC'",
    batch = function(db, lo, hi)
      return db:exec("delete from event where id between $1 and $2 and at < '2024-01-01 00:00 UTC'", lo, hi)
    end,
    options = { max = 5000 },
  },
}
