-- prelude_again: what a job that runs again loses of its last end. Joined after `prelude_place`.

-- What a finished job says of its end, by the state it was in.
local OUTCOME = { completed = 'returnvalue', failed = 'failedReason' }

-- A child that runs again is pending again, for a parent that still exists. One that was told of
-- its end already is not taken back: it may be running.
local function pend_again(job_key, prev)
  local parent_key = call('HGET', job_key, 'parentKey')
  if not parent_key or call('EXISTS', parent_key) == 0 then return end
  local was_told
  if prev == 'completed' then
    was_told = call('HDEL', parent_key .. ':processed', job_key) == 1
  else
    was_told = call('ZREM', parent_key .. ':unsuccessful', job_key) == 1
      or call('HDEL', parent_key .. ':failed', job_key) == 1
  end
  if was_told then call('SADD', parent_key .. ':dependencies', job_key) end
end

local function forget_end(job_key, prev)
  call('HDEL', job_key, 'finishedOn', 'processedOn', OUTCOME[prev])
  pend_again(job_key, prev)
end
