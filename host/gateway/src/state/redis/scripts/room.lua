-- Shared by the scripts that add entries. The index is a sorted set of the entries of a namespace
-- by the time at which they expire, so that their number is known and has a bound.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function has_room(key, index, most)
  if redis.call('EXISTS', key) == 1 or redis.call('ZCARD', index) < most then return true end
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
  if redis.call('ZCARD', index) < most then return true end
  -- Entries that the server evicted are still in the index.
  for _, other in ipairs(redis.call('ZRANDMEMBER', index, 16)) do
    if redis.call('EXISTS', other) == 0 then redis.call('ZREM', index, other) end
  end
  return redis.call('ZCARD', index) < most
end

local function put(key, index, value, ttl)
  if ttl > 0 then
    redis.call('SET', key, value, 'PX', ttl)
    redis.call('ZADD', index, now + ttl, key)
  else
    redis.call('SET', key, value)
    redis.call('ZADD', index, '+inf', key)
  end
end
