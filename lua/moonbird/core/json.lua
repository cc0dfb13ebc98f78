--- JSON: encode(value [, pretty]), encode_exact(value [, pretty]), decode(text), array(table), null. See
--- bindings/json.c.
return require "moonbird.native.json"
