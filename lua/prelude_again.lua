-- prelude_again: what a job that runs again loses of its last end, and of its last delay. Joined
-- after `prelude_place`.

-- What a finished job says of its end, by the state it was in.
local OUTCOME = { completed = 'returnvalue', failed = 'failedReason' }

-- What Redis is told takes a moment, and a delay may be counted from then.
local LATE_MS = 1000

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

-- A job that was cancelled, and run again before Redis heard of it, waits for a time that nobody
-- means any more. For jobs whose newest start is older than the wanted one.
local function leave_late(delayed_key, id, due_ms, now)
  local score = tonumber(call('ZSCORE', delayed_key, id) or 0)
  if math.floor(score / SCORES_PER_MS) <= math.max(due_ms or now, now) + LATE_MS then return end
  call('ZREM', delayed_key, id)
  return 'delayed'
end
