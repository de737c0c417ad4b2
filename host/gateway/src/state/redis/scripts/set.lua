-- ARGV: value, time to live in milliseconds (0: none), most entries. Returns {0: set, 1: full; 0}.
if not has_room(KEYS[1], KEYS[2], tonumber(ARGV[3])) then return {1, 0} end
put(KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[2]))
return {0, 0}
