-- ARGV: what to add, time to live in milliseconds (0: none), most entries.
-- Returns {0: added, 1: full, 2: not a number; sum}. A counter is `c` and its decimal text.
local old = redis.call('GET', KEYS[1])
local number = 0
if old then
  if string.sub(old, 1, 1) ~= 'c' then return {2, 0} end
  number = tonumber(string.sub(old, 2))
  if not number then return {2, 0} end
end
local sum = number + tonumber(ARGV[1])
if sum > 2147483647 or sum < -2147483648 then return {2, 0} end
local value = string.format('c%.0f', sum)
if old then
  redis.call('SET', KEYS[1], value, 'KEEPTTL')
else
  if not has_room(KEYS[1], KEYS[2], tonumber(ARGV[3])) then return {1, 0} end
  put(KEYS[1], KEYS[2], value, tonumber(ARGV[2]))
end
return {0, sum}
