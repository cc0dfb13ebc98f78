-- The shop's configuration. Without a url, moonbird uses DATABASE_URL, or else starts a private PostgreSQL.
return {
  environments = {
    development = { url = "embedded:" },
    -- production = { url = env("PRODUCTION_DATABASE_URL"), timeouts = { lock = "2s" } },
  },
  default_environment = "development",
}
