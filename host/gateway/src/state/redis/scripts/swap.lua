-- ARGV: 1 if a value is expected and 0 if none is, that value, the new value with its tag, time to
-- live in milliseconds (0: none), most entries. Returns {0: set, 1: full, 3: another value; 0}.
local old = redis.call('GET', KEYS[1])
if ARGV[1] == '1' then
  if not old or string.sub(old, 2) ~= ARGV[2] then return {3, 0} end
elseif old then
  return {3, 0}
end
if not has_room(KEYS[1], KEYS[2], tonumber(ARGV[5])) then return {1, 0} end
put(KEYS[1], KEYS[2], ARGV[3], tonumber(ARGV[4]))
return {0, 0}
