-- move_to_waiting_children: a running job waits for children that are still pending.
--
-- KEYS[1] active            LIST
-- KEYS[2] stalled           SET     suspects
-- KEYS[3] waiting_children  ZSET    parents by the time they began to wait
-- KEYS[4] marker            ZSET    wakes one blocked worker
-- KEYS[5] meta              HASH    queue settings
-- KEYS[6] events            STREAM
-- ARGV[1] job_prefix        start of a job's hash key
-- ARGV[2] test_now_ms       empty in production: server time is used
-- ARGV[3] id
-- ARGV[4] token
-- ARGV[5] child_key         wait for this child only; '': for any
--
-- Undeclared keys: the job hash, `job_prefix .. id`, its lock, `:dependencies` and
--                  `:unsuccessful`.
--
-- Returns  0 it waits; 1 nothing is pending, it runs on; -1 no hash, -2 no lock, -3 not active,
--          -6 the lock is another attempt's, -9 a child has failed
-- Moves    active -> waiting-children
-- Repeat   safe: a job that left active is not touched again.

local active, stalled, waiting_children = KEYS[1], KEYS[2], KEYS[3]
local marker, meta, events = KEYS[4], read_meta(KEYS[5]), KEYS[6]
local prefix, now, id, token = ARGV[1], clock_ms(ARGV[2]), ARGV[3], ARGV[4]
local job_key, child_key = prefix .. id, ARGV[5]
local NOTHING_PENDING, CHILD_FAILED = 1, -9

if call('EXISTS', job_key) == 0 then return JOB_MISSING end
if call('ZCARD', job_key .. ':unsuccessful') > 0 then return CHILD_FAILED end

local function is_pending()
  if child_key == '' then return call('SCARD', job_key .. ':dependencies') > 0 end
  return call('SISMEMBER', job_key .. ':dependencies', child_key) == 1
end
if not is_pending() then return NOTHING_PENDING end

local codes = take_active(prefix, active, stalled, { id }, { token }, true)
if codes[1] ~= DONE then return codes[1] end
call('ZADD', waiting_children, text(now), id)
call('XADD', events, '*', 'event', 'waiting-children', 'jobId', id, 'prev', 'active')
wake_for_slot(marker, meta)
trim_events(events, meta)
return DONE
