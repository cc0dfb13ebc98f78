--- Array literals built value by value, see bindings/array.c.
return require "moonbird.native.array"
