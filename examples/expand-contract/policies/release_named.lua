--- This project's own rule: a contract migration names the release since which nobody uses the old shape.
return {
  id = "release-named",
  severity = "error",
  title = "a contract migration names the release since which the old shape is unused",
  explain = [[
Whoever allows a contract migration has to know which releases may still run beside it. The tag `since-2.5` says that
release 2.5 and every later one does without the old shape, so that 2.4 must not run anywhere any more.]],
  fix = "tags: since-MAJOR.MINOR",

  applies = function(ctx)
    return ctx.migration.phase == "contract"
  end,

  check = function(ctx)
    for _, tag in ipairs(ctx.migration.tags or {}) do
      if tag:find("^since%-%d+%.%d+$") then
        return
      end
    end
    ctx:report("the contract migration does not name the release since which the old shape is unused")
  end,
}
