-- add_log: append a row to the log of a job.
--
-- KEYS[1] job   HASH
-- KEYS[2] logs  LIST  oldest row first
-- ARGV[1] row
-- ARGV[2] keep  the newest so many rows stay, at least 1; '': all
--
-- Returns  how many rows there are now; -1 no hash
-- Moves    nothing
-- Repeat   not safe: the row comes again.

local job, logs, JOB_MISSING = KEYS[1], KEYS[2], -1

if call('EXISTS', job) == 0 then return JOB_MISSING end
local rows = call('RPUSH', logs, ARGV[1])
if ARGV[2] == '' then return rows end
call('LTRIM', logs, -tonumber(ARGV[2]), -1)
return math.min(rows, tonumber(ARGV[2]))
