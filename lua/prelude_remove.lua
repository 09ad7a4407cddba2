-- prelude_remove: take jobs out of every state, and forget them. Joined after `prelude_dedup`.

-- The keys of a queue that a job may be in.
local function every_key(queue_key)
  local key = keys_of_queue(queue_key)
  key.paused, key.completed = key.base .. 'paused', key.base .. 'completed'
  key.stalled, key.schedules = key.base .. 'stalled', key.base .. 'repeat'
  return key
end

-- In the order in which a job is looked for.
local SET_STATES = { 'prioritized', 'delayed', 'completed', 'failed', 'waiting-children' }
local LIST_STATES = { 'active', 'wait', 'paused' }

-- Takes a job out of the state it is in, which is answered; none: it was in no state.
local function leave(key, id)
  for i = 1, #SET_STATES do
    local state = SET_STATES[i]
    if call('ZREM', key.base .. state, id) == 1 then return state end
  end
  for i = 1, #LIST_STATES do
    local state = LIST_STATES[i]
    if call('LREM', key.base .. state, -1, id) > 0 then
      if state == 'active' then call('SREM', key.stalled, id) end
      return state
    end
  end
end

local LEAVE_PAGE = 5000
local GONE = '' -- no id is empty

-- Takes ids out of a list in one walk instead of one each. Answers those that were there.
local function leave_list(list, ids)
  local wanted, left = {}, {}
  for i = 1, #ids do wanted[ids[i]] = true end
  for first = 0, call('LLEN', list) - 1, LEAVE_PAGE do
    local page = call('LRANGE', list, first, first + LEAVE_PAGE - 1)
    for i = 1, #page do
      if wanted[page[i]] then
        left[page[i]] = true
        call('LSET', list, first + i - 1, GONE)
      end
    end
  end
  if next(left) then call('LREM', list, 0, GONE) end
  return left
end

-- Takes many jobs out of their states. Answers the state of each that was in one.
local function leave_many(key, ids)
  local states, open = {}, {}
  for i = 1, #ids do
    local id = ids[i]
    for at = 1, #SET_STATES do
      if call('ZREM', key.base .. SET_STATES[at], id) == 1 then
        states[id] = SET_STATES[at]
        break
      end
    end
    if not states[id] then open[#open + 1] = id end
  end
  for at = 1, #LIST_STATES do
    if #open == 0 then break end
    local left, still = leave_list(key.base .. LIST_STATES[at], open), {}
    for i = 1, #open do
      if left[open[i]] then
        states[open[i]] = LIST_STATES[at]
        if LIST_STATES[at] == 'active' then call('SREM', key.stalled, open[i]) end
      else
        still[#still + 1] = open[i]
      end
    end
    open = still
  end
  return states
end

-- A schedule would end with its current iteration.
local function is_current_iteration(key, id)
  local schedule_id = call('HGET', key.base .. id, 'rjk')
  local at = schedule_id and call('ZSCORE', key.schedules, schedule_id)
  return at and id == 'repeat:' .. schedule_id .. ':' .. text(tonumber(at))
end

-- What others know of a job that is about to be deleted: who waits for it, what it kept away.
-- `doomed_parent` goes, too, and is not released before.
local function untie(key, id, is_hard, doomed_parent)
  local job_key = key.base .. id
  local job = call('HMGET', job_key, 'deid', 'parentKey')
  if job[1] then forget_dedup(key.base, job[1], id) end
  if job[2] and job[2] ~= doomed_parent then detach_from_parent(job_key, job[2], is_hard) end
end

-- Deletes jobs with their parts and locks.
local function delete_with_locks(job_keys)
  local locks = {}
  for i = 1, #job_keys do locks[i] = job_keys[i] .. ':lock' end
  delete_jobs(job_keys)
  call_keys('DEL', locks)
end

local function announce_removed(key, id, prev)
  call('XADD', key.events, '*', 'event', 'removed', 'jobId', id, 'prev', prev)
end
