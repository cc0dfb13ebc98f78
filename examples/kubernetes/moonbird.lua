return {
  -- DATABASE_URL, from the Secret, is the database with the tenants' schemas; the fleet's runs are on it too.
  tenants = {
    source = tenants.schemas{ like = "tenant_%" },
    jobs = 8, -- of each pod: 4 pods are 32 connections
    canary = { 1, "10%" },
    max_failures = 3, -- of all pods together
  },
}
