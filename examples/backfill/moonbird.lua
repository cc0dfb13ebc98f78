return {
  -- Holds for every backfill that says nothing else.
  backfill = { batch_target = "300ms", max_lag = "64MB" },
}
