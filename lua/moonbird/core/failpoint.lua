--- failpoint(name): where the crash tests kill the process; does nothing in release builds.
return require "moonbird.native.failpoint"
