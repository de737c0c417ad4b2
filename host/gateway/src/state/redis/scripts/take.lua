-- The arithmetic of `Policy::decide` (host/runtime/src/limiter.rs), with the clock of the server.
-- ARGV: 1 for a token bucket and 0 for a sliding window, limit, window in milliseconds, burst,
-- cost, lifetime in milliseconds, and the units to take if there are so many, for a lease of a
-- sliding window. Returns {1 if allowed, remaining, reset, retry after, units taken}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local is_bucket = ARGV[1] == '1'
local limit, window, burst = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local cost, lifetime, wanted = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local stored = redis.call('HMGET', KEYS[1], 's', 'u', 'p')
local since = tonumber(stored[1]) or 0
local used = tonumber(stored[2]) or 0
local previous = tonumber(stored[3]) or 0
local allowed, remaining, reset, retry, taken = false, 0, 0, 0, 0

if is_bucket then
  local elapsed = math.min(math.max(0, now - since), lifetime)
  used = math.max(0, used - elapsed * limit)
  local capacity = burst * window
  allowed = used + cost * window <= capacity
  if allowed then
    used, taken = used + cost * window, cost
  else
    retry = math.ceil((used + cost * window - capacity) / limit)
  end
  since = math.max(now, since)
  remaining = math.floor((capacity - math.min(used, capacity)) / window)
  reset = math.ceil(used / limit)
else
  local elapsed = math.max(0, now - since)
  if elapsed >= 2 * window or (used == 0 and previous == 0) then
    since, used, previous, elapsed = now, 0, 0, 0
  elseif elapsed >= window then
    since, used, previous, elapsed = since + window, 0, used, elapsed - window
  end
  local carried = math.floor(previous * (window - elapsed) / window)
  remaining = math.max(0, limit - carried - used)
  reset = window - elapsed
  allowed = cost <= remaining
  if allowed then
    taken = math.max(cost, math.min(wanted, remaining))
    used, remaining = used + taken, remaining - taken
  else
    local function wait(units, room)
      return math.floor((units - math.min(room, units)) * window / math.max(units, 1)) + 1
    end
    if used + cost <= limit then
      retry = math.max(0, wait(previous, limit - used - cost) - elapsed)
    else
      retry = reset + wait(used, limit - cost)
    end
    retry = math.max(1, retry)
  end
end

local text = function(number) return string.format('%.0f', number) end
redis.call('HSET', KEYS[1], 's', text(since), 'u', text(used), 'p', text(previous))
redis.call('PEXPIRE', KEYS[1], text(lifetime))
return {allowed and 1 or 0, remaining, reset, retry, taken}
