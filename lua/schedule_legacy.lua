-- schedule_legacy: make the next job of a repeatable of BullMQ 4 and older, which is no schedule.
--
-- KEYS[1] repeat       ZSET    key of the repeatable by the due ms of its current job
-- KEYS[2] delayed      ZSET    job id by due time
-- KEYS[3] wait         LIST    job ids without priority, next one at the tail
-- KEYS[4] prioritized  ZSET    job id by priority and arrival
-- KEYS[5] pc           STRING  counts arrivals
-- KEYS[6] marker       ZSET    wakes one blocked worker
-- KEYS[7] active       LIST    only measured, for the global concurrency
-- KEYS[8] meta         HASH    queue settings
-- KEYS[9] events       STREAM
-- KEYS[10] id          STRING  counts every add
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] options      msgpack map: id (key of the repeatable), job_id, name, data, opts (JSON
--                      without its end), priority, lifo, dedup_id, tick_ms, due_ms (of the job)
-- ARGV[3] test_now_ms  empty in production: server time is used
--
-- Undeclared keys: the job's hash, `job_prefix .. job_id`.
--
-- Returns  the job id of the next job; nil: the repeatable was removed, or its next job is there
-- Moves    nothing -> delayed | prioritized | wait
-- Repeat   safe: a job whose hash exists is not added again.

local key, prefix, options = schedule_keys(), ARGV[1], cmsgpack.unpack(ARGV[2])
local now = clock_ms(ARGV[3])

if not call('ZSCORE', key.schedules, options.id) then return false end
call('ZADD', key.schedules, text(options.tick_ms), options.id)
if call('EXISTS', prefix .. options.job_id) == 1 then
  call('INCR', key.id)
  call('XADD', key.events, '*', 'event', 'duplicated', 'jobId', options.job_id)
  return false
end
add_iteration(key, prefix, options, options.job_id, options.name, options.data, options.due_ms,
  now)
return options.job_id
