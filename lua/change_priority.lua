-- change_priority: a job gets another priority, and its place by it if it waits.
--
-- KEYS[1] wait         LIST    job ids without priority, next one at the tail
-- KEYS[2] paused       LIST    where BullMQ 5 keeps them while the queue is paused
-- KEYS[3] prioritized  ZSET    job id by priority and arrival
-- KEYS[4] pc           STRING  counts arrivals
-- KEYS[5] marker       ZSET    wakes one blocked worker
-- KEYS[6] active       LIST    only measured, for the global concurrency
-- KEYS[7] meta         HASH    queue settings
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] id
-- ARGV[3] priority     0: none
-- ARGV[4] lifo         '1': before its equals, '': behind them
--
-- Undeclared keys: the job hash, `job_prefix .. id`.
--
-- Returns  0; -1 no hash
-- Moves    wait | paused | prioritized -> wait | paused | prioritized. A job in another state
--          keeps it, and has the priority when it waits again.
-- Repeat   safe: the job is placed among its equals once more.

local wait, paused, prioritized = KEYS[1], KEYS[2], KEYS[3]
local key = { wait = wait, prioritized = prioritized, pc = KEYS[4], marker = KEYS[5],
  active = KEYS[6] }
local job_key, id, priority = ARGV[1] .. ARGV[2], ARGV[2], tonumber(ARGV[3])
local is_lifo, JOB_MISSING = ARGV[4] ~= '', -1

if call('EXISTS', job_key) == 0 then return JOB_MISSING end

local function waited()
  return call('ZREM', prioritized, id) == 1 or call('LREM', wait, -1, id) > 0
    or call('LREM', paused, -1, id) > 0
end

if waited() then
  local batch = new_batch()
  if is_lifo then place_front(batch, id, priority) else place(batch, id, priority) end
  flush(batch, key, read_meta(KEYS[7]))
end
call('HSET', job_key, 'priority', ARGV[3])
return 0
