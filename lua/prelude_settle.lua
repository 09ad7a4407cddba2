-- prelude_settle: end an attempt of jobs that are active. Joined after those it is used with.
--
-- The outcome is already in the record when a script is called, so a lock that ran out does not
-- stop it as long as the job is still active. The lock of another attempt does. A job that is
-- moved by its own processor has no outcome in any record yet: there the lock is needed.

local DONE, JOB_MISSING, LOCK_MISSING, NOT_ACTIVE, LOCK_MISMATCH = 0, -1, -2, -3, -6

-- Takes each job out of `active` and drops its lock. One code per job; only for DONE anything
-- was changed.
local function take_active(prefix, active, stalled, ids, tokens, needs_lock)
  local keys, locks = {}, {}
  for i = 1, #ids do
    keys[i] = prefix .. ids[i]
    locks[i] = keys[i] .. ':lock'
  end
  local all_exist = call_keys('EXISTS', keys) == #ids
  local owners = call('MGET', unpack(locks))
  local codes, released, taken = {}, {}, {}
  for i = 1, #ids do
    if not all_exist and call('EXISTS', keys[i]) == 0 then
      codes[i] = JOB_MISSING
    elseif owners[i] and not is_holder(owners[i], tokens[i]) then
      codes[i] = LOCK_MISMATCH
    elseif needs_lock and not owners[i] then
      codes[i] = LOCK_MISSING
    elseif call('LREM', active, -1, ids[i]) == 0 then -- jobs that end now were claimed early
      codes[i] = NOT_ACTIVE
    else
      codes[i] = DONE
      taken[#taken + 1] = ids[i]
      if owners[i] then released[#released + 1] = locks[i] end
    end
  end
  call_keys('DEL', released)
  call_many('SREM', stalled, taken)
  return codes, #taken
end

-- {position, code, …} of the jobs that were not done: empty in the usual case.
local function refusals(codes)
  local list = {}
  for i = 1, #codes do
    if codes[i] ~= DONE then
      list[#list + 1] = i
      list[#list + 1] = codes[i]
    end
  end
  return list
end

local function evict(set, prefix, first_to_last)
  local keys = {}
  for i = 1, #first_to_last do keys[i] = prefix .. first_to_last[i] end
  delete_jobs(keys)
  call_many('ZREM', set, first_to_last)
end

-- More than a batch adds, so that a set that is over its bound shrinks with every batch.
local EVICT_MAX = 1000

-- Keeps a finished set within `keep.age_s` and `keep.count`, oldest out first. Bounded.
local function keep_within(set, prefix, keep, now)
  if keep.age_s then
    local cutoff = text(now - keep.age_s * 1000)
    local limit = text(math.min(keep.limit or EVICT_MAX, EVICT_MAX))
    evict(set, prefix, call('ZRANGEBYSCORE', set, '-inf', cutoff, 'LIMIT', '0', limit))
  end
  if keep.count and keep.count > 0 then
    local over = math.min(call('ZCARD', set) - keep.count, EVICT_MAX)
    if over > 0 then evict(set, prefix, call('ZRANGE', set, '0', text(over - 1))) end
  end
end

-- One number per minute, newest first, as BullMQ's dashboards read it.
local function count_metrics(metrics, points, jobs, now, points_max)
  local before = call('HINCRBY', metrics, 'count', jobs) - jobs
  local last = call('HMGET', metrics, 'prevTS', 'prevCount')
  if not last[1] then
    call('HSET', metrics, 'prevTS', text(now), 'prevCount', '0')
    return
  end
  local minutes = math.floor(now / 60000) - math.floor(tonumber(last[1]) / 60000)
  minutes = math.min(minutes, points_max)
  if minutes <= 0 then return end
  local row = { text(before - (tonumber(last[2]) or 0)) }
  for i = 2, minutes do row[i] = '0' end
  call_many('LPUSH', points, row)
  call('LTRIM', points, '0', text(points_max - 1))
  call('HSET', metrics, 'prevCount', text(before), 'prevTS', text(now))
end

-- A queue at its global concurrency suppressed the markers: now a slot is free.
local function wake_for_slot(marker, meta)
  if meta.concurrency and not meta.paused then call('ZADD', marker, '0', '0') end
end

-- After a batch of ends: does a waiting job get a free slot, or is the queue empty now? A queue
-- that is held or has delayed jobs is not called drained: the contract.
local function after_ending(key, meta)
  if call('LLEN', key.wait) > 0 or call('ZCARD', key.prioritized) > 0 then
    wake_for_slot(key.marker, meta)
  elseif call('LLEN', key.active) == 0 and not meta.paused
    and call('ZCARD', key.delayed) == 0 then
    call('XADD', key.events, '*', 'event', 'drained')
  end
end
