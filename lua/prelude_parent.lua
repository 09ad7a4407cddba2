-- prelude_parent: tell a parent, in its own queue, what became of a child. Joined after
-- `prelude_place`.
--
-- A parent may be in any queue of any prefix. Its keys are made from what the child's hash says
-- about it, so no caller can declare them: in a cluster all queues of a flow share a hash tag.

-- Whatever is wrong with keys of other jobs must not keep this one, and its whole batch, from
-- ending: it has left `active` already. The parent is told again by whoever looks after flows.
local function attempt_to(tell, ...)
  local ok, why = pcall(tell, ...)
  if not ok then
    if type(why) == 'table' then why = why.err end
    redis.log(redis.LOG_WARNING, 'bullwark: a related job was not told: ' .. tostring(why))
  end
end

-- The keys of a queue, from `prefix:queue`.
local function keys_of_queue(queue_key)
  local base = queue_key .. ':'
  return { base = base, wait = base .. 'wait', prioritized = base .. 'prioritized',
    delayed = base .. 'delayed', pc = base .. 'pc', marker = base .. 'marker',
    active = base .. 'active', meta = base .. 'meta', events = base .. 'events',
    failed = base .. 'failed', waiting_children = base .. 'waiting-children' }
end

-- `prefix:queue` of a job, and its id, from its key. Ids hold no colon but those of a schedule's
-- iterations, `repeat:schedule:time`.
local function queue_key_of(job_key)
  return job_key:match('^(.-):repeat:.+:%d+$') or job_key:match('^(.*):[^:]*$')
end

local function id_of(job_key)
  return job_key:match('^.-:(repeat:.+:%d+)$') or job_key:match('([^:]*)$')
end

-- A parent that has left `waiting-children`, or wherever else it waited, becomes available: next
-- in line, or by its own priority, or after its own delay.
local function release_parent(key, id, now)
  local job = call('HMGET', key.base .. id, 'priority', 'delay')
  local priority, delay_ms = tonumber(job[1]) or 0, tonumber(job[2]) or 0
  if delay_ms > 0 then
    local due_ms = now + delay_ms -- without a place among the jobs of that ms: the contract
    call('ZADD', key.delayed, text(due_ms * SCORES_PER_MS), id)
    call('XADD', key.events, '*', 'event', 'delayed', 'jobId', id, 'delay', text(due_ms))
    wake_when_due(key.marker, key.delayed)
    return
  end
  local batch = new_batch()
  if priority > 0 then place(batch, id, priority) else place_front(batch, id, 0) end
  flush(batch, key, read_meta(key.meta))
  announce_waiting(key.events, id, 'waiting-children')
end

local function release_if_ready(parent_key, now)
  if call('SCARD', parent_key .. ':dependencies') > 0 then return end
  local key, id = keys_of_queue(queue_key_of(parent_key)), id_of(parent_key)
  if call('ZREM', key.waiting_children, id) == 1 then release_parent(key, id, now) end
end

local function tell_parent_completed(child_key, parent_key, returnvalue, now)
  if call('SREM', parent_key .. ':dependencies', child_key) == 0 then return end
  call('HSET', parent_key .. ':processed', child_key, returnvalue)
  release_if_ready(parent_key, now)
end

-- A child that fails for good may take its parent along: it fails when it is claimed next.
local function fail_parent(child_key, parent_key, now)
  local key, id = keys_of_queue(queue_key_of(parent_key)), id_of(parent_key)
  call('ZADD', parent_key .. ':unsuccessful', text(now), child_key)
  local reason = 'child ' .. child_key .. ' failed'
  local waits = call('ZREM', key.waiting_children, id) == 1
  if not waits and call('ZREM', key.delayed, id) == 1 then
    call('HSET', parent_key, 'delay', '0')
    waits = true
  end
  if waits then
    call('HSET', parent_key, 'defa', reason)
    release_parent(key, id, now)
  elseif not call('ZSCORE', key.failed, id) then
    call('HSET', parent_key, 'defa', reason)
  end
end

-- What the parent is told is up to the child's `parent` field, not its options. Without one of
-- the four policies it is told nothing, and waits until the child is retried.
local function tell_parent_failed(child_key, parent_key, parent_json, reason, now)
  local policy = parent_json and cjson.decode(parent_json) or {}
  if not (policy.fpof or policy.cpof or policy.idof or policy.rdof) then return end
  if call('SREM', parent_key .. ':dependencies', child_key) == 0 then return end
  if policy.fpof then return fail_parent(child_key, parent_key, now) end
  if policy.cpof then
    call('HSET', parent_key .. ':failed', child_key, reason)
    local key, id = keys_of_queue(queue_key_of(parent_key)), id_of(parent_key)
    if call('ZREM', key.waiting_children, id) == 1 then release_parent(key, id, now) end
    return
  end
  release_if_ready(parent_key, now)
  if policy.idof then call('HSET', parent_key .. ':failed', child_key, reason) end
end

-- A child that is removed leaves its parent. The last one releases it; where a whole queue is
-- emptied (`is_hard`) a parent in that queue goes, too, since nothing will ever finish for it.
local function detach_from_parent(child_key, parent_key, is_hard)
  while parent_key and call('SREM', parent_key .. ':dependencies', child_key) == 1 do
    if call('SCARD', parent_key .. ':dependencies') > 0 then return end
    local key, id = keys_of_queue(queue_key_of(parent_key)), id_of(parent_key)
    if call('ZREM', key.waiting_children, id) == 0 then return end
    if is_hard and child_key:sub(1, #key.base) == key.base then
      local grandparent_key = call('HGET', parent_key, 'parentKey')
      delete_jobs({ parent_key })
      child_key, parent_key = parent_key, grandparent_key
    else
      local batch = new_batch()
      place_front(batch, id, 0) -- the contract: without regard to its priority and delay
      flush(batch, key, read_meta(key.meta))
      if not is_hard then announce_waiting(key.events, id, 'waiting-children') end
      return
    end
  end
end
