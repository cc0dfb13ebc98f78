--- The process and its surroundings: the native module, so that layers above core can require it.
--
-- getenv(name), setenv(name, value|nil), environ() -> table
-- hostname(), pid(), uid(), user() -> name, passwd(name) -> {uid, gid, home}
-- isatty(fd), columns(fd) -> width or nil, write(fd, text) (whole text; nil, message, "EPIPE")
-- time() and monotonic() -> seconds with fraction, utc([time]) -> {year, month, day, hour, min, sec}
-- random(n) -> n bytes, sha256(text) -> hex, exit(code [, close_state])
return require "moonbird.native.sys"
