--- folders{ path, ... }: one hash that says what the migration folders hold; nil when they hold anything out
--- of the ordinary. Computed in a worker thread. See engine/core/fingerprint.h.
return require "moonbird.native.fingerprint"
