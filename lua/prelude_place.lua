-- prelude_place: put jobs where they wait, and wake a worker. Joined after `prelude_fair`.
--
-- `place` and `place_front` only collect; `flush` writes one command per key for the whole batch,
-- so the order of a batch is kept and a thousand jobs cost as many commands as one.

local SCORES_PER_MS = 4096 -- the low 12 bits of a due score count jobs of one ms

local function new_batch()
  return { back = {}, front = {}, prioritized = {}, pushed_back = {}, delayed = {}, top = {},
    at_most = {} }
end

-- Paused, or as many jobs active as the queue's global concurrency allows.
local function is_held(meta, active)
  if meta.paused then return true end
  return meta.concurrency ~= nil and call('LLEN', active) >= meta.concurrency
end

-- The score of a job due at this ms: one above the highest of that ms, while there is room.
local function due_score(delayed, due_ms, top)
  local first = due_ms * SCORES_PER_MS
  local last = first + SCORES_PER_MS - 1
  local highest = top[due_ms]
  if not highest then
    local found = call('ZREVRANGEBYSCORE', delayed, last, first, 'WITHSCORES', 'LIMIT', 0, 1)
    highest = tonumber(found[2])
  end
  local score = highest and math.min(highest + 1, last) or first
  top[due_ms] = score
  return score
end

-- Behind its equals. `lifo` puts a job without priority at the front of `wait`.
local function place(batch, id, priority, lifo)
  if priority > 0 then
    local list = batch.prioritized
    list[#list + 1] = priority
    list[#list + 1] = id
  elseif lifo then
    batch.front[#batch.front + 1] = id
  else
    batch.back[#batch.back + 1] = id
  end
end

-- Before its equals.
local function place_front(batch, id, priority)
  if priority > 0 then
    local list = batch.pushed_back
    list[#list + 1] = priority * PRIORITY_STEP
    list[#list + 1] = id
  else
    batch.front[#batch.front + 1] = id
  end
end

local function place_delayed(batch, delayed_key, id, due_ms)
  local list = batch.delayed
  list[#list + 1] = due_score(delayed_key, due_ms, batch.top)
  list[#list + 1] = id
end

local function announce_waiting(events, id, prev)
  if prev then
    call('XADD', events, '*', 'event', 'waiting', 'jobId', id, 'prev', prev)
  else
    call('XADD', events, '*', 'event', 'waiting', 'jobId', id)
  end
end

local function wake(marker, meta, active)
  if not is_held(meta, active) then call('ZADD', marker, '0', '0') end
end

-- BullMQ keeps the fraction in the marker; readers cut it off.
local function wake_when_due(marker, delayed_key)
  local first = call('ZRANGE', delayed_key, 0, 0, 'WITHSCORES')
  if first[2] then call('ZADD', marker, tonumber(first[2]) / SCORES_PER_MS, '1') end
end

-- Writes what was collected. `key` names wait, prioritized, delayed, pc, marker and active.
local function flush(batch, key, meta)
  local waiting, prioritized = waiting_list(key.wait, meta), batch.prioritized
  if meta.fair then
    for i = 1, #batch.back do
      prioritized[#prioritized + 1] = 0
      prioritized[#prioritized + 1] = batch.back[i]
    end
    batch.back = {}
    take_turns(key, prioritized, batch.pushed_back, batch.at_most)
    call_many('ZADD', key.prioritized, prioritized)
  elseif #prioritized > 0 then
    local jobs = #prioritized / 2
    local arrival = call('INCRBY', key.pc, jobs) - jobs
    for i = 1, #prioritized, 2 do
      arrival = arrival + 1
      prioritized[i] = prioritized[i] * PRIORITY_STEP + arrival % PRIORITY_STEP
    end
    call_many('ZADD', key.prioritized, prioritized)
  end
  call_many('LPUSH', waiting, batch.back)
  call_many('RPUSH', waiting, batch.front)
  call_many('ZADD', key.prioritized, batch.pushed_back)
  if #batch.back + #batch.front + #prioritized + #batch.pushed_back > 0 then
    wake(key.marker, meta, key.active)
  end
  if #batch.delayed > 0 then
    call_many('ZADD', key.delayed, batch.delayed)
    wake_when_due(key.marker, key.delayed)
  end
end
