---@meta moonbird.script

--- The function that a script of `moonbird run SCRIPT.lua [ARGS]` returns. Statements commit one by one;
--- db:atomic makes a transaction. An integer that it returns is the exit status.
---@alias moonbird.script fun(db: moonbird.db, ...: string): integer?
