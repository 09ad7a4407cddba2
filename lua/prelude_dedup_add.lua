-- prelude_dedup_add: may a job be added when another one owns its deduplication id? Joined after
-- `prelude_dedup`.
--
-- The modes are BullMQ's. Simple: until the owner ends. `ttl`: for so long. `extend`: each try
-- begins the time anew. `replace`: a delayed owner makes room. `reschedule`: a delayed owner waits
-- as long as the newcomer would. `keepLastIfActive`: while the owner runs, the last newcomer is
-- remembered and added when it ends.

-- BullMQ 5 listens for the older name, too.
local function announce_deduplicated(queue, dedup_id, surviving_id, dropped_id)
  local events = queue.key.events
  if queue.meta.v5_peers then
    call('XADD', events, '*', 'event', 'debounced', 'jobId', surviving_id, 'debounceId', dedup_id)
  end
  call('XADD', events, '*', 'event', 'deduplicated', 'jobId', surviving_id,
    'deduplicationId', dedup_id, 'deduplicatedJobId', dropped_id)
end

-- Removes a delayed owner; the job that is being added owns the id from now on.
local function replace_owner(queue, job, owner_key, owner_id)
  local key, dedup = queue.key, job.dedup
  if call('ZREM', key.delayed, owner_id) == 0 then return false end
  delete_jobs({ key.base .. owner_id })
  call('XADD', key.events, '*', 'event', 'removed', 'jobId', owner_id, 'prev', 'delayed')
  announce_deduplicated(queue, dedup.id, job.id, owner_id)
  call('DEL', key.base .. 'dn:' .. dedup.id) -- was to follow the one that is gone
  local is_timed = (tonumber(dedup.ttl) or 0) > 0 and not dedup.keepLastIfActive
  if is_timed and not dedup.extend then
    call('SET', owner_key, job.id, 'KEEPTTL')
  else
    own_dedup(key.base, dedup, job.id)
  end
  return true
end

-- A key without expiry goes with its owner: one that stays behind is of a job that was lost.
local function is_owner_lost(queue, owner_key, owner_id)
  return call('PTTL', owner_key) == -1 and call('EXISTS', queue.key.base .. owner_id) == 0
end

-- Keeps the job for the time when the active owner ends. Only the last one is kept.
local function remember_last(queue, job, owner_key, owner_id)
  local next_key = queue.key.base .. 'dn:' .. job.dedup.id
  local fields = { 'name', job.name, 'data', job.data, 'opts', job.opts, 'jid', job.id }
  local function keep(name, value)
    if not value then return end
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  keep('pk', job.parent_key)
  keep('pd', job.parent)
  keep('pdk', job.parent_key and job.parent_key .. ':dependencies')
  keep('rjk', job.schedule_id)
  call('DEL', next_key)
  call_many('HSET', next_key, fields)
  call('PERSIST', owner_key) -- or it would expire before its owner ends
  announce_deduplicated(queue, job.dedup.id, owner_id, job.id)
end

local function reschedule(queue, job, owner_id, due_ms)
  local key, batch = queue.key, new_batch()
  if not call('ZSCORE', key.delayed, owner_id) then return end
  call('HSET', key.base .. owner_id, 'delay', text(job.delay_ms))
  place_delayed(batch, key.delayed, owner_id, due_ms) -- above its own old score: the contract
  call('XADD', key.events, '*', 'event', 'delayed', 'jobId', owner_id, 'delay', text(due_ms))
  flush(batch, key, queue.meta)
end

-- The id of the job that stays instead of this one; nil: the job may be added and owns the id.
local function deduplicate(queue, job, due_ms)
  local base, dedup = queue.key.base, job.dedup
  local owner_key = base .. 'de:' .. dedup.id
  local owner_id = call('GET', owner_key)
  if not owner_id then return own_dedup(base, dedup, job.id) end
  if dedup.replace and replace_owner(queue, job, owner_key, owner_id) then return nil end
  if is_owner_lost(queue, owner_key, owner_id) then
    call('DEL', base .. 'dn:' .. dedup.id)
    return own_dedup(base, dedup, job.id)
  end
  if dedup.keepLastIfActive and call('LPOS', queue.key.active, owner_id) then
    remember_last(queue, job, owner_key, owner_id)
    return owner_id
  end
  if dedup.replace then return owner_id end -- without an event: the contract
  if dedup.extend and (tonumber(dedup.ttl) or 0) > 0 then own_dedup(base, dedup, owner_id) end
  announce_deduplicated(queue, dedup.id, owner_id, job.id)
  if dedup.reschedule then reschedule(queue, job, owner_id, due_ms) end
  return owner_id
end
