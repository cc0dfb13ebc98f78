local CONTRACT = { phase = "contract", compatibility = "contract_breaking", rationale = "nobody reads it any more" }

local function with(tags)
  local header = { tags = tags }
  for key, value in pairs(CONTRACT) do
    header[key] = value
  end
  return header
end

return {
  rule = "release-named",
  flagged = {
    { name = "no tags", sql = "drop table old_prices;", header = CONTRACT, message = "does not name the release" },
    { name = "other tags", sql = "drop table old_prices;", header = with("prices, cleanup") },
    { name = "no number", sql = "drop table old_prices;", header = with("since-spring") },
  },
  clean = {
    { name = "a release", sql = "drop table old_prices;", header = with("since-2.5") },
    { name = "among others", sql = "drop table old_prices;", header = with("prices, since-10.0") },
    { name = "an expand migration", sql = "create table prices (id bigint primary key);" },
  },
}
