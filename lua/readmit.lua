-- readmit: make jobs of a new memory of Redis what the record says of their starts.
--
-- KEYS[1] active            LIST
-- KEYS[2] wait              LIST
-- KEYS[3] paused            LIST    left by BullMQ 5
-- KEYS[4] prioritized       ZSET
-- KEYS[5] delayed           ZSET
-- KEYS[6] waiting_children  ZSET
-- KEYS[7] stalled           SET     suspects
-- ARGV[1] job_prefix        start of a job's hash key
-- ARGV[2] lease_ms          of jobs that are to be active
-- ARGV[3] active_max        active jobs that are searched for each of them
-- ARGV[4…] four per job: id, starts at least, token or '' if it need not be active, starts at most
--          or ''
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, and their `:lock`.
--
-- Returns  the positions (from 1) of jobs without a hash, or with more starts: left as they are
-- Moves    any state but a finished one -> active, for jobs with a token. A lock that is there
--          stays.
-- Repeat   safe.

local active, prefix, lease_ms, active_max = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local FIRST, STRIDE = 4, 4

local function leave_state(id)
  for i = 4, 6 do
    if call('ZREM', KEYS[i], id) == 1 then return end
  end
  if call('LREM', KEYS[2], 1, id) == 0 then call('LREM', KEYS[3], 1, id) end
end

local absent = {}
for at = FIRST, #ARGV, STRIDE do
  local id, starts, token = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local job_key, most = prefix .. id, tonumber(ARGV[at + 3])
  local is_there = call('EXISTS', job_key) == 1
  local known = is_there and tonumber(call('HGET', job_key, 'ats')) or 0
  if not is_there or (most and known > most) then
    absent[#absent + 1] = (at - FIRST) / STRIDE + 1
  else
    if starts == 0 and known == 0 then
      call('HDEL', job_key, 'ats') -- not counted: whoever claims it asks the record
    elseif starts > known then
      call('HSET', job_key, 'ats', text(starts))
    end
    if token ~= '' then
      if not call('LPOS', active, id, 'MAXLEN', active_max) then
        leave_state(id)
        call('LPUSH', active, id)
      end
      call('SET', job_key .. ':lock', token, 'PX', lease_ms, 'NX')
      call('SREM', KEYS[7], id)
    end
  end
end
return absent
