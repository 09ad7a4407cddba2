-- prelude_claim: how many jobs may be claimed, and which are next. Joined after `prelude_place`.

local OTHER_MEMORY = 2

-- Whether this is the memory of Redis that was compared with the record. The key says that it was
-- not emptied; the replication id, which every start and every promotion of a server changes, that
-- it was not put back. INFO also shows the id before, under another name.
local function is_memory(epoch_key, epoch, server)
  return call('GET', epoch_key) == epoch
    and (server == ''
      or call('INFO', 'replication'):find('master_replid:' .. server, 1, true) ~= nil)
end

-- A claim pops in rounds, each twice as large as the one before, and ends when the jobs' data grow
-- beyond this: a reply that takes longer than its reader waits would leave all of them without an
-- owner, again and again.
local ROUNDS_MAX, FIRST_ROUND, BYTES_MAX = 12, 16, 4 * 1024 * 1024

-- Appends up to `count` ids of a list; entries `0:…` are markers of old BullMQ versions.
local function pop_list(list, ids, count)
  for _ = 1, ROUNDS_MAX do
    local popped = #ids < count and call('RPOP', list, count - #ids)
    if not popped then return end
    for _, id in ipairs(popped) do
      if id:sub(1, 2) ~= '0:' then ids[#ids + 1] = id end
    end
  end
end

-- The next ids, and whether there are no more.
local function pop_next(key, count)
  local ids = {}
  pop_list(key.wait, ids, count)
  pop_list(key.paused, ids, count)
  if #ids < count then
    local popped = call('ZPOPMIN', key.prioritized, count - #ids)
    local is_last = #popped / 2 < count - #ids
    if is_last then call('DEL', key.pc) end
    for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
    return ids, is_last
  end
  return ids, false
end

-- The rate limit of the queue goes before that of the worker; a window that the worker names
-- goes before the queue's.
local function read_rate(meta, limit)
  local max = meta.rate_max or (limit and tonumber(limit.max))
  if not max then return nil end
  local window_ms = (limit and tonumber(limit.window_ms)) or meta.rate_ms or 0
  return { max = max, window_ms = math.floor(math.abs(window_ms)) }
end

-- The count of a limiter that was closed by hand: more than any limit allows.
local CLOSED = 9007199254740991

-- How long nothing starts where there is no limit: somebody closed the limiter. BullMQ's workers
-- do not look at it then.
local function closed_ms(key)
  local used = tonumber(call('GET', key.limiter)) or 0
  return used >= CLOSED and call('PTTL', key.limiter) or 0
end

-- How many may be claimed, how long to wait if the rate limit says none, and 1 if the queue is
-- held.
local function room(key, meta, rate, wanted, heeds_limiter)
  local count = wanted
  if rate then
    local used = tonumber(call('GET', key.limiter)) or 0
    if used >= rate.max then
      local ttl_ms = call('PTTL', key.limiter)
      if ttl_ms > 0 then return 0, ttl_ms, 0 end
      if ttl_ms == 0 then call('DEL', key.limiter) end
      used = 0
    end
    count = math.min(count, rate.max - used)
  elseif heeds_limiter then
    local ttl_ms = closed_ms(key)
    if ttl_ms > 0 then return 0, ttl_ms, 0 end
  end
  if is_held(meta, key.active) then return 0, 0, 1 end
  if meta.concurrency then count = math.min(count, meta.concurrency - call('LLEN', key.active)) end
  return count, 0, 0
end

-- Counts what was started in the window. Jobs that only fail, with a deferred failure, are free.
local function count_started(key, rate, started)
  if not rate or started == 0 then return end
  if call('INCRBY', key.limiter, started) == started then
    call('PEXPIRE', key.limiter, text(rate.window_ms))
  end
end
