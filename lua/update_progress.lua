-- update_progress: note how far running jobs are.
--
-- KEYS[1] meta         HASH    queue settings
-- KEYS[2] events       STREAM
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2…] three per job: id, token, progress (JSON)
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, and their `:lock`.
--
-- Returns  {position, code, …} of jobs left as they are: -1 no hash, -2 no lock, -6 the lock is
--          another attempt's
-- Moves    nothing
-- Repeat   safe: the last value stays; the event comes again.

local meta_key, events = KEYS[1], KEYS[2]
local prefix = ARGV[1]
local FIRST, STRIDE = 2, 3
local JOB_MISSING, LOCK_MISSING, LOCK_MISMATCH = -1, -2, -6

local refused = {}
local function refuse(position, code)
  refused[#refused + 1] = position
  refused[#refused + 1] = code
end

for at = FIRST, #ARGV, STRIDE do
  local id, position, job_key = ARGV[at], (at - FIRST) / STRIDE + 1, prefix .. ARGV[at]
  local owner = call('GET', job_key .. ':lock')
  if call('EXISTS', job_key) == 0 then
    refuse(position, JOB_MISSING)
  elseif not owner then
    refuse(position, LOCK_MISSING)
  elseif not is_holder(owner, ARGV[at + 1]) then
    refuse(position, LOCK_MISMATCH)
  else
    call('HSET', job_key, 'progress', ARGV[at + 2])
    call('XADD', events, '*', 'event', 'progress', 'jobId', id, 'data', ARGV[at + 2])
  end
end
trim_events(events, read_meta(meta_key))
return refused
