-- claim: promote due jobs, then move the next ones to active under a lock.
--
-- KEYS[1] wait         LIST    job ids without priority, next one at the tail
-- KEYS[2] active       LIST    newest at the head
-- KEYS[3] prioritized  ZSET    job id by priority and arrival
-- KEYS[4] delayed      ZSET    job id by due time
-- KEYS[5] paused       LIST    left by BullMQ 5; drained after wait, never written
-- KEYS[6] pc           STRING  deleted when prioritized is found empty
-- KEYS[7] marker       ZSET    wakes one blocked worker
-- KEYS[8] meta         HASH    queue settings
-- KEYS[9] events       STREAM
-- KEYS[10] limiter     STRING  activations in this window
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] options      msgpack map: token, max (jobs), lease_ms, promote_max (jobs),
--                      worker_name (optional)
-- ARGV[3] test_now_ms  empty in production: server time is used
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, and their `:lock`.
--
-- Returns  {now_ms, next_due_ms or 0, rate_wait_ms or 0, 1 if held, ids,
--          JOB_FIELDS of each}; held: paused, or at the global concurrency
-- Moves    delayed -> wait | prioritized; wait | paused | prioritized -> active
-- Repeat   not safe: it claims further jobs. Those of a lost reply are rescued.

local active, prioritized, delayed, events = KEYS[2], KEYS[3], KEYS[4], KEYS[9]
local wait, paused, pc, marker, limiter = KEYS[1], KEYS[5], KEYS[6], KEYS[7], KEYS[10]
local key = { wait = wait, prioritized = prioritized, delayed = delayed, pc = pc, marker = marker,
  active = active, events = events }
local prefix, options, now = ARGV[1], cmsgpack.unpack(ARGV[2]), clock_ms(ARGV[3])
local now_text, lease_ms, meta = text(now), text(options.lease_ms), read_meta(KEYS[8])

local JOB_FIELDS = { 'name', 'data', 'opts', 'timestamp', 'delay', 'priority', 'ats', 'atm', 'stc',
  'defa', 'parentKey', 'parent', 'rjk', 'deid' }
local NAME, DATA, ATS, DEFA = 1, 2, 7, 10
local ROUNDS_MAX = 10 -- more than one only where old markers or ids without a hash are dropped
local function promote_due()
  local last = text((now + 1) * SCORES_PER_MS - 1)
  local due = call('ZRANGEBYSCORE', delayed, '0', last, 'LIMIT', '0', text(options.promote_max))
  if #due == 0 then return end
  call_many('ZREM', delayed, due)
  promote_jobs(prefix, due, key, meta)
end

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

local function pop(count)
  local ids = {}
  pop_list(wait, ids, count)
  pop_list(paused, ids, count)
  if #ids < count then
    local popped = call('ZPOPMIN', prioritized, count - #ids)
    if #popped / 2 < count - #ids then call('DEL', pc) end
    for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
  end
  return ids
end

-- How many may be claimed, and how long to wait if a rate limit says none.
local function room()
  if is_held(meta, active) then return 0, 0, 1 end
  local count = options.max
  if meta.concurrency then count = math.min(count, meta.concurrency - call('LLEN', active)) end
  if meta.rate_max then
    local used = tonumber(call('GET', limiter)) or 0
    if used >= meta.rate_max then
      local ttl_ms = call('PTTL', limiter)
      if ttl_ms > 0 then return 0, ttl_ms, 0 end
      if ttl_ms == 0 then call('DEL', limiter) end
      used = 0
    end
    count = math.min(count, meta.rate_max - used)
  end
  return count, 0, 0
end

promote_due()
local count, rate_wait_ms, held = room()
local claimed, rows, counted = {}, {}, 0
for _ = 1, ROUNDS_MAX do
  local ids = #claimed < count and pop(count - #claimed) or {}
  if #ids == 0 then break end
  local live = {}
  for i = 1, #ids do
    local id, job_key = ids[i], prefix .. ids[i]
    local row = call('HMGET', job_key, unpack(JOB_FIELDS))
    if row[NAME] or row[DATA] then -- else its hash is gone: running it would make a ghost
      live[#live + 1] = id
      call('SET', job_key .. ':lock', options.token, 'PX', lease_ms)
      call('XADD', events, '*', 'event', 'active', 'jobId', id, 'prev', 'waiting')
      local started = text((tonumber(row[ATS]) or 0) + 1)
      if options.worker_name then
        call('HSET', job_key, 'processedOn', now_text, 'ats', started, 'pb', options.worker_name)
      else
        call('HSET', job_key, 'processedOn', now_text, 'ats', started)
      end
      if not row[DEFA] then counted = counted + 1 end
      claimed[#claimed + 1] = id
      rows[#rows + 1] = row
    end
  end
  call_many('LPUSH', active, live)
end

if meta.rate_max and counted > 0 and call('INCRBY', limiter, counted) == counted then
  call('PEXPIRE', limiter, text(math.floor(math.abs(meta.rate_ms or 0))))
end
if #claimed > 0 then call('ZADD', marker, '0', '0') end -- the next sleeper looks, too

local first_due = tonumber(call('ZRANGE', delayed, '0', '0', 'WITHSCORES')[2])
local next_due_ms = first_due and math.floor(first_due / SCORES_PER_MS) or 0
return { now, next_due_ms, rate_wait_ms, held, claimed, rows }
