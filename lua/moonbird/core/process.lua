--- Child processes: the native module, so that layers above core can require it.
--
-- run(spec) -> {status, signal, stdout, stderr}, or nil, err; waits, so only inside a task
-- spawn(spec) -> handle with pid(), kill([signal]), wait([ms]), close_stdin(), close(); or nil, err
-- signal(pid, signal) -> true, or nil, message, errno
-- lock(path) -> lock with try("shared"|"exclusive"), release(), close(); or nil, message, errno
--
-- spec: file, args, env, cwd, uid, gid, stdin (text or "pipe"), stdout and stderr ("capture",
-- "inherit", "null"), detached. `status` is nil and `signal` its name when a signal ended the child.
return require "moonbird.native.process"
