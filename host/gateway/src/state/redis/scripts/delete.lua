-- Returns 1 if the key was there.
redis.call('ZREM', KEYS[2], KEYS[1])
return redis.call('DEL', KEYS[1])
