return {
  migrations = "migrations",

  environments = {
    development = {},
    production = {
      url = env("PRODUCTION_DATABASE_URL"),
      -- Only the pipeline (CI=true) migrates it, and only with `moonbird deploy`.
      protected = true,
      timeouts = { lock = "2s" },
      policy = { rules = { ["irreversible-allowed"] = { forbid = true } } },
    },
  },
  default_environment = "development",
}
