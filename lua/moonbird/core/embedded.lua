--- What is compiled in: `version` of the engine and journal_migrations(), the journal's own schema.
return require "moonbird.native.embedded"
