---@meta moonbird.policy

-- What a project's rules (policies/*.lua) and their tests (policies/*_test.lua) are made of. docs/guide/policies.md.

--- A rule. A file in policies/ returns one, or a list of them.
---@class moonbird.policy.rule
---@field id string small letters, digits and "-"
---@field check fun(ctx: moonbird.policy.ctx) reports what it finds with ctx:report
---@field applies? fun(ctx: moonbird.policy.ctx): boolean false: the rule has nothing to say here
---@field severity? "error"|"warning"|"info" default "error"
---@field title? string what holds where the rule finds nothing
---@field explain? string why; `moonbird policy explain` shows it
---@field fix? string one line: what to do
---@field group? string default "project"
---@field needs? ("history"|"git"|"live"|"step"|"recording")[] facts without which it can't be checked
---@field uses? ("live")[] facts that it can do without and says more with
---@field per? "migration"|"registry" "registry": called once, without ctx.migration
---@field moments? ("check"|"before"|"after")[] default check and before
---@field hard? boolean true: can't be waived
---@field gate? boolean true: its errors stop `up` and `down` too
---@field options? table<string, moonbird.policy.option>
---@field seeds? string[] where it comes from: a decision record, say
---@field examples? { bad?: string, good?: string } whole migrations

---@class moonbird.policy.option
---@field default any
---@field type? "string"|"integer"|"number"|"boolean"|"list" default: that of `default`
---@field help? string

--- What a rule is called with. Everything in it is read-only.
---@class moonbird.policy.ctx
---@field moment "check"|"before"|"after"
---@field direction "up"|"down"
---@field now string today, "2026-11-21"
---@field options table the rule's own, as this environment sets them
---@field migration moonbird.policy.migration nil in a rule per registry
---@field statements moonbird.policy.statement[] of the direction that is looked at
---@field down_statements moonbird.policy.statement[]
---@field registry moonbird.policy.registry
---@field environment { name?: string, protected?: table }
---@field run { command: string, ci: boolean, emergency?: string, allow: { contract: boolean, breaking: boolean } }
---@field ledger table<string, string>|nil checksums.json: file name to SHA-256
---@field history moonbird.policy.history|nil of the target; needs "history"
---@field git moonbird.policy.git|nil against the base; needs "git"
---@field live moonbird.policy.live|nil questions to the database; needs "live"
---@field step { direction: string, duration_ms: integer, transactional: boolean }|nil needs "step"
---@field tenants { schemas: string[], key?: string }|nil
---@field journal_schema string where moonbird keeps its journal
local ctx = {}

--- Reports a finding.
---@param message string what is wrong here
---@param options? moonbird.policy.report_options
function ctx:report(message, options) end

---@class moonbird.policy.report_options
---@field at? moonbird.policy.statement|{ line: integer, column?: integer }
---@field fix? string instead of the rule's own
---@field severity? "error"|"warning"|"info" no higher than the environment sets the rule

--- A migration as a rule sees it. What the file does not say is the default; `declared` has what it says itself.
---@class moonbird.policy.migration
---@field version integer
---@field version_text string as written
---@field name string without version and extension
---@field file string
---@field base_name string
---@field kind "sql"|"lua"
---@field text string
---@field checksum string
---@field id string
---@field stable_id? string the head's own id
---@field description? string
---@field phase "expand"|"contract"
---@field scope "global"|"tenant"
---@field compatibility "backward_compatible"|"contract_breaking"
---@field declared { phase: boolean, scope: boolean, compatibility: boolean }
---@field completes? integer[]
---@field irreversible? string
---@field rationale? string
---@field purpose? string
---@field owner? string
---@field data_preservation? string
---@field tags? string[]
---@field transaction boolean
---@field sections? integer pairs of up and down in a .sql file
---@field backfill? table
---@field barrier? boolean
---@field waivers? table[]
---@field up moonbird.policy.body
---@field down moonbird.policy.body|false
---@field recorded boolean its Lua functions were run, and what they sent is in their statements

---@class moonbird.policy.body
---@field kind "sql"|"function"
---@field opaque boolean a Lua function that was not run: its statements are not known
---@field statements moonbird.policy.statement[]

--- All migrations, by version. `by_version[20250101000000]` is one of them.
---@class moonbird.policy.registry
---@field [integer] moonbird.policy.migration with the head's fields only
---@field by_version table<integer, moonbird.policy.migration>

---@class moonbird.policy.history
---@field target string
---@field exists boolean whether there is a journal
---@field newest? integer
---@field applied table<integer, { version: integer, id: string, phase: string, checksum: string }>
---@field backfills table<integer, { done: boolean, share: number }>

---@class moonbird.policy.git
---@field base string
---@field merge_base string
---@field base_versions { version: integer, version_text: string, file: string, name: string }[] at the tip of the base
---@field merged table<string, true> files at the merge base
---@field changes { status: "modified"|"deleted"|"renamed"|"added", file: string, from?: string }[] since then
---@field ledger_in_base boolean checksums.json is there already

--- Questions to the database; they read only.
---@class moonbird.policy.live
local live = {}

--- A relation; nil when it is not there.
---@param schema string|nil nil: by the search path
---@param name string
---@return { kind: string, rows: number, bytes: integer, empty: boolean, partitioned: boolean }|nil
function live:relation(schema, name) end

---@param schema string|nil
---@param name string
---@return { name: string, columns: string[], unique: boolean, valid: boolean, partial: boolean }[]
function live:indexes(schema, name) end

---@param schema string|nil
---@param name string
---@return table<string, { type: string, not_null: boolean, default: string|nil }>
function live:columns(schema, name) end

--- Runs a query in a read-only transaction, with a time limit.
---@param sql string
---@param ... moonbird.db.value
---@return moonbird.db.row[]
function live:query(sql, ...) end

--- A statement as facts. `moonbird policy facts FILE` prints them; names are as the server folds them.
---@class moonbird.policy.statement
---@field index integer in its direction
---@field direction "up"|"down"
---@field source "sql"|"string"|"function" a .sql file, a string of SQL, what a Lua function sent
---@field text string
---@field file string
---@field line integer
---@field column integer
---@field last_line integer
---@field tag string "CREATE INDEX"
---@field class "plain"|"alone"|"control"|"copy"|"session"
---@field parsed boolean false: only `tag`, `verb` and `kind` are known
---@field problem? string why it could not be parsed
---@field verb string "create", "alter", "drop", "update", ...
---@field kind? string "table", "index", "view", "function", ...
---@field schema? string
---@field name? string of the object
---@field relation? { schema?: string, name: string } the table, also of an index, trigger, policy or rule
---@field columns string[]
---@field actions moonbird.policy.action[] what ALTER and CREATE TABLE do
---@field concurrently? boolean
---@field if_exists? boolean
---@field if_not_exists? boolean
---@field cascade? boolean
---@field replace? boolean
---@field only? boolean
---@field unique? boolean
---@field new boolean the relation was made earlier in the same direction, or here
---@field transactional boolean it may run in a transaction
---@field where? "none"|"always"|"some" of UPDATE and DELETE
---@field breaking? string why a release that runs would fail
---@field destroys? string which data is lost
---@field writes_data boolean
---@field changes_schema boolean
---@field heavy? string why it takes long or locks much
---@field relations { schema?: string, name: string, access: "read"|"write"|"ddl" }[] all that it names
---@field schemas string[] all that it names
---@field objects? { schema?: string, name: string }[] of DROP
---@field writes { verb: string, schema?: string, name: string }[] the tables whose rows it changes
---@field functions string[] that it calls
---@field function_? { language: string, security_definer: boolean, settings: table<string, string>, body: string }
---@field grant? { privileges: string[], grantees: string[], with_grant_option: boolean }
---@field role? { name: string, options: table<string, boolean>, password: boolean }
---@field params? any[] recordings: the values that were bound
---@field reads? (string|number)[] recordings: values read before that stand in this text
---@field tree? table libpg_query's parse tree

---@class moonbird.policy.action
---@field kind string "add_column", "drop_column", "alter_type", "set_not_null", "add_constraint", ...
---@field column? string
---@field type? { name: string, schema?: string, text: string, array: boolean, args: table }
---@field constraint? { name?: string, kind: string, columns: string[], references?: table, not_valid?: boolean }
---@field not_null? boolean
---@field default? { text: string, volatile?: boolean, constant: boolean }
---@field to? string the new name
---@field if_exists? boolean
---@field if_not_exists? boolean
---@field cascade? boolean

--- A file policies/*_test.lua returns one such table, or a list of them.
---@class moonbird.policy.suite
---@field rule string
---@field flagged? moonbird.policy.case[]
---@field clean? moonbird.policy.case[]

--- A migration and made-up facts; the rule finds something, or nothing.
---@class moonbird.policy.case
---@field name? string
---@field sql? string a whole .sql migration, or only the statements of its up
---@field lua? string a whole Lua migration
---@field file? string its name
---@field down? string statements of the down, for a bare `sql`
---@field header? table<string, string|false> head lines for a bare `sql`; false takes one away
---@field others? table<string, string> further files
---@field recorded? { up?: table[], down?: table[] } what its functions send: { text =, line =, params =, reads = }
---@field ledger? table<string, string|true>|false
---@field history? { target?: string, applied?: table, backfills?: table } applied: versions, or version to a row
---@field git? table
---@field live? { relations?: table, indexes?: table, columns?: table, queries?: table }
---@field environment? { name?: string, protected?: table }
---@field run? table
---@field tenants? { schemas: string[], key?: string }
---@field step? table
---@field moment? "check"|"before"|"after"
---@field direction? "up"|"down"
---@field options? table of the rule under test
---@field rules? table settings of further rules, as policy.rules in moonbird.lua
---@field now? string default "2025-06-15"
---@field line? integer of the finding
---@field message? string a pattern in the finding's message
---@field severity? string of the finding
