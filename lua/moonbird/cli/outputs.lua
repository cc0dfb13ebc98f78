--- Where what the policy found goes: to people, and to the files and places that --sarif, --junit and --github name.
-- What an outcome is: report/findings.lua.
local error_ = require "moonbird.core.error"
local findings_of = require "moonbird.report.findings"
local fs = require "moonbird.core.fs"
local sys = require "moonbird.core.sys"

local M = {}

--- From the root of the working tree to the current folder: what files are shown from, as code hosts name them.
---@return string "" or ends in a slash
function M.prefix()
  local cwd = fs.cwd()
  local root = cwd
  while root and root ~= "" do
    if fs.stat(root .. "/.git") then
      return root == cwd and "" or cwd:sub(#root + 2) .. "/"
    end
    root = root:match("^(.*)/[^/]*$")
  end
  return ""
end

--- Writes an output atomically; makes the folders it lies in.
---@param path string
---@param text string
---@return moonbird.error? err code "io"
function M.write_file(path, text)
  local parent = path:match("^(.*)/[^/]*$")
  local ok, message
  if parent and parent ~= "" then
    ok, message = fs.mkdir(parent)
    if not ok then
      return error_.new("io", ("cannot write \"%s\": %s"):format(path, message))
    end
  end
  ok, message = fs.write(path, text)
  return not ok and error_.new("io", message) or nil
end

--- Writes what was asked for: to people, --sarif FILE, --junit FILE, --github. Every output is tried, whatever
--- becomes of the others.
---@param args table sarif, junit, github, json, quiet, verbose
---@param report moonbird.reporter
---@param outcome moonbird.policy.outcome
---@return true|nil
---@return moonbird.error? err code "io", of the first that failed
function M.write(args, report, outcome)
  local github = args.github and require "moonbird.report.github"
  local first
  local function attempt(err)
    first = first or err
    if err and first ~= err then
      report:log("error", err.message)
    end
  end
  if not outcome.failure and not (args.quiet and outcome.errors == 0) then
    local text = findings_of.text(outcome, report.out, (args.verbose or 0) > 0)
    report:write(github and github.shield(text) or text)
  end
  local options = { prefix = (args.sarif or github) and M.prefix() or "", title = "moonbird " .. (args.command or "") }
  if args.sarif then
    attempt(M.write_file(args.sarif, require("moonbird.report.sarif").text(outcome, options)))
  end
  if args.junit then
    attempt(M.write_file(args.junit, require("moonbird.report.junit").text(outcome)))
  end
  if github then
    local text = github.annotations(outcome, options)
    if args.json then
      sys.write(2, text) -- the runner reads both; stdout is one JSON object
    else
      report:write(text)
    end
    local path = sys.getenv("GITHUB_STEP_SUMMARY")
    if path and path ~= "" then
      local ok, message = fs.append(path, github.summary(outcome, options))
      attempt(not ok and error_.new("io", message) or nil)
    end
  end
  return not first or nil, first
end

return M
