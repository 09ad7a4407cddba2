-- change_delay: a delayed job becomes due at another time.
--
-- KEYS[1] delayed      ZSET    job id by due time
-- KEYS[2] marker       ZSET    wakes one blocked worker
-- KEYS[3] meta         HASH    queue settings
-- KEYS[4] events       STREAM
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] test_now_ms  empty in production: server time is used
-- ARGV[3] id
-- ARGV[4] delay_ms     from now; 0: due now
--
-- Undeclared keys: the job hash, `job_prefix .. id`.
--
-- Returns  0; -1 no hash; -3 not delayed
-- Moves    delayed -> delayed
-- Repeat   safe: the delay counts from the last call, and is announced again.

local delayed, marker, meta, events = KEYS[1], KEYS[2], read_meta(KEYS[3]), KEYS[4]
local job_key, now = ARGV[1] .. ARGV[3], clock_ms(ARGV[2])
local id, delay_ms = ARGV[3], tonumber(ARGV[4])
local JOB_MISSING, NOT_DELAYED = -1, -3

if call('EXISTS', job_key) == 0 then return JOB_MISSING end
if not call('ZSCORE', delayed, id) then return NOT_DELAYED end

local due_ms = now + delay_ms
local batch = new_batch()
place_delayed(batch, delayed, id, due_ms)
call_many('ZADD', delayed, batch.delayed)
call('HSET', job_key, 'delay', ARGV[4])
call('XADD', events, '*', 'event', 'delayed', 'jobId', id, 'delay', text(due_ms))
wake_when_due(marker, delayed)
trim_events(events, meta)
return 0
