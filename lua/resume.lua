-- resume: let the jobs of a paused queue start again.
--
-- KEYS[1] meta         HASH    queue settings
-- KEYS[2] wait         LIST    job ids without priority, next one at the tail
-- KEYS[3] paused       LIST    left by BullMQ 5; merged into wait, where current workers look
-- KEYS[4] prioritized  ZSET    only measured
-- KEYS[5] delayed      ZSET    only read
-- KEYS[6] marker       ZSET    wakes one blocked worker
-- KEYS[7] active       LIST    only measured, for the global concurrency
-- KEYS[8] events       STREAM
-- ARGV[1] merge_max    ids merged at most; call again until none is left
--
-- Returns  {1 if the queue was paused, ids left in the paused list}
-- Moves    paused -> wait, before those that wait there, in their order
-- Repeat   safe: the second time nothing is announced.

local meta_key, wait, paused, prioritized = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local delayed, marker, active, events = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local merge_max = tonumber(ARGV[1])

local was_paused = call('HDEL', meta_key, 'paused')
if call('EXISTS', wait) == 0 and call('EXISTS', paused) == 1 then
  call('RENAME', paused, wait) -- only where there is nothing that it could replace
else
  -- Head first: the last one pushed is the old tail, which is next.
  call_many('RPUSH', wait, call('LRANGE', paused, 0, merge_max - 1))
  call('LTRIM', paused, merge_max, -1)
end
if call('LLEN', wait) > 0 or call('ZCARD', prioritized) > 0 then
  wake(marker, read_meta(meta_key), active)
else
  wake_when_due(marker, delayed)
end
if was_paused == 1 then call('XADD', events, '*', 'event', 'resumed') end
return { was_paused, call('LLEN', paused) }
