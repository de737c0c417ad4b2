-- ARGV: 1 the name of a gateway, 2 its state, 3 the number of the decision that it knows, 4 a new
-- decision or ''. The decision is taken only if the gateway knows the last one. Returns the number
-- of the last decision, 1 if the new one was taken, the last decision, and all fields.
local number = tonumber(redis.call('HGET', KEYS[1], 'number') or '0')
local taken = 0
if ARGV[4] ~= '' and number == tonumber(ARGV[3]) then
  number = number + 1
  taken = 1
  redis.call('HSET', KEYS[1], 'number', number, 'decision', ARGV[4])
end
-- Gateways that went away leave their fields behind. Those that live write theirs again.
if redis.call('HLEN', KEYS[1]) > 130 then
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, 2) == 'g:' then redis.call('HDEL', KEYS[1], field) end
  end
end
redis.call('HSET', KEYS[1], 'g:' .. ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], 2592000000)
return {number, taken, redis.call('HGET', KEYS[1], 'decision') or '', redis.call('HGETALL', KEYS[1])}
