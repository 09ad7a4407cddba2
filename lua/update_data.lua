-- update_data: a job gets other data.
--
-- KEYS[1] job   HASH
-- ARGV[1] data  JSON
--
-- Returns  0; -1 no hash
-- Moves    nothing
-- Repeat   safe: the last value stays.

local JOB_MISSING = -1

if call('EXISTS', KEYS[1]) == 0 then return JOB_MISSING end
call('HSET', KEYS[1], 'data', ARGV[1])
return 0
