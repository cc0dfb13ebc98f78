return {
  environments = {
    development = {},
    -- Only the pipeline migrates production, with `moonbird deploy`, and only forward.
    production = { url = env("PRODUCTION_DATABASE_URL"), protected = true },
  },
  default_environment = "development",
}
