-- reprocess: a finished job waits again.
--
-- KEYS[1] finished     ZSET    completed or failed
-- KEYS[2] wait         LIST    job ids without priority, next one at the tail
-- KEYS[3] prioritized  ZSET    job id by priority and arrival
-- KEYS[4] pc           STRING  counts arrivals
-- KEYS[5] marker       ZSET    wakes one blocked worker
-- KEYS[6] active       LIST    only measured, for the global concurrency
-- KEYS[7] meta         HASH    queue settings
-- KEYS[8] events       STREAM
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] id
-- ARGV[3] state        `completed` or `failed`, as KEYS[1]
-- ARGV[4] lifo         '1': next in line, if it has no priority
-- ARGV[5] resets_made     '1': as if no attempt had been spent
-- ARGV[6] resets_started  '1': as if it had never been started
--
-- Undeclared keys: the job hash, `job_prefix .. id`, and its parent's keys, in whatever queue.
--
-- Returns  0; -1 no hash; -3 not in that state
-- Moves    completed | failed -> wait | prioritized
-- Repeat   safe: the second time it is not in that state.

local finished, events, meta = KEYS[1], KEYS[8], read_meta(KEYS[7])
local key = { wait = KEYS[2], prioritized = KEYS[3], pc = KEYS[4], marker = KEYS[5],
  active = KEYS[6] }
local job_key, id, state = ARGV[1] .. ARGV[2], ARGV[2], ARGV[3]
local JOB_MISSING, NOT_IN_STATE = -1, -3

if call('EXISTS', job_key) == 0 then return JOB_MISSING end
if call('ZREM', finished, id) == 0 then return NOT_IN_STATE end

forget_end(job_key, state)
if ARGV[5] ~= '' then call('HDEL', job_key, 'atm') end
if ARGV[6] ~= '' then call('HDEL', job_key, 'ats') end
local batch = new_batch()
place(batch, id, tonumber(call('HGET', job_key, 'priority')) or 0, ARGV[4] ~= '')
flush(batch, key, meta)
announce_waiting(events, id, state)
trim_events(events, meta)
return 0
