-- schedule_remove: end a schedule. An iteration that is not due yet goes with it.
--
-- KEYS[1] repeat       ZSET    schedule id by the due ms of its current iteration
-- KEYS[2] delayed      ZSET    job id by due time
-- KEYS[3] events       STREAM
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] schedule_id
--
-- Undeclared keys: `repeat:id` (the schedule's hash) and `repeat:id:ms` (its iteration).
--
-- Returns  1 if there was such a schedule, else 0
-- Moves    delayed -> nothing
-- Repeat   safe: what is gone is gone.

local schedules, delayed, events = KEYS[1], KEYS[2], KEYS[3]
local prefix, schedule_id = ARGV[1], ARGV[2]

local due_ms = tonumber(call('ZSCORE', schedules, schedule_id))
if not due_ms then return 0 end
local id = 'repeat:' .. schedule_id .. ':' .. text(due_ms)
if call('ZREM', delayed, id) == 1 then
  delete_jobs({ prefix .. id })
  call('XADD', events, '*', 'event', 'removed', 'jobId', id, 'prev', 'delayed')
end
call('ZREM', schedules, schedule_id)
call('DEL', schedules .. ':' .. schedule_id)
return 1
