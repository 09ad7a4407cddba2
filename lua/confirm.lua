-- confirm: may these attempts end now? Asked before an outcome is recorded. Also tells how long
-- their logs are.
--
-- KEYS[1] active       LIST    only read
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2…] three per job: id, token, completes '1' or ''
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, their `:lock`, `:dependencies`,
--                  `:unsuccessful` and `:logs`.
--
-- Returns  {{position, code, …} of jobs that may not, {rows of the log of each job}}: -1 no hash,
--          -2 no lock, -3 not active, -4 has children that are not over, -6 the lock is another
--          attempt's, -9 has children that failed
-- Moves    nothing
-- Repeat   safe: reads only.

local active, prefix = KEYS[1], ARGV[1]
local FIRST, STRIDE = 2, 3
local JOB_MISSING, LOCK_MISSING, NOT_ACTIVE = -1, -2, -3
local PENDING_CHILDREN, LOCK_MISMATCH, FAILED_CHILDREN = -4, -6, -9

local function code_of(id, token, completes)
  local job_key = prefix .. id
  if call('EXISTS', job_key) == 0 then return JOB_MISSING end
  if completes and call('SCARD', job_key .. ':dependencies') > 0 then return PENDING_CHILDREN end
  if completes and call('ZCARD', job_key .. ':unsuccessful') > 0 then return FAILED_CHILDREN end
  local owner = call('GET', job_key .. ':lock')
  if not owner then return LOCK_MISSING end
  if not is_holder(owner, token) then return LOCK_MISMATCH end
  if not call('LPOS', active, id, 'RANK', -1) then return NOT_ACTIVE end
end

local refused, log_rows = {}, {}
for at = FIRST, #ARGV, STRIDE do
  log_rows[#log_rows + 1] = call('LLEN', prefix .. ARGV[at] .. ':logs')
  local code = code_of(ARGV[at], ARGV[at + 1], ARGV[at + 2] ~= '')
  if code then
    refused[#refused + 1] = (at - FIRST) / STRIDE + 1
    refused[#refused + 1] = code
  end
end
return { refused, log_rows }
