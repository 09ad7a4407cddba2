-- extend: prolong the locks of running jobs.
--
-- KEYS[1] stalled      SET     suspects
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] lease_ms     from now
-- ARGV[3…] two per job: id, token
--
-- Undeclared keys: the locks, `job_prefix .. id .. ':lock'`.
--
-- Returns  the positions (from 1) of jobs whose lock is gone or another attempt's. The lock of a
--          job that was put back while it ran becomes its worker's again.
-- Moves    nothing
-- Repeat   safe: the lease is counted from now.

local stalled = KEYS[1]
local prefix, lease_ms = ARGV[1], ARGV[2]
local FIRST, STRIDE = 3, 2

local locks = {}
for at = FIRST, #ARGV, STRIDE do locks[#locks + 1] = prefix .. ARGV[at] .. ':lock' end
local owners = call('MGET', unpack(locks))
local lost, alive = {}, {}
for i = 1, #locks do
  local at = FIRST + (i - 1) * STRIDE
  local token = ARGV[at + 1]
  if owners[i] == token then
    call('PEXPIRE', locks[i], lease_ms)
    alive[#alive + 1] = ARGV[at]
  elseif owners[i] and is_holder(owners[i], token) then
    call('SET', locks[i], token, 'PX', lease_ms)
    alive[#alive + 1] = ARGV[at]
  else
    lost[#lost + 1] = i
  end
end
call_many('SREM', stalled, alive)
return lost
