-- claim: promote due jobs, then move the next ones to active under a lock.
--
-- KEYS[1] wait         LIST    job ids without priority, next one at the tail
-- KEYS[2] active       LIST    newest at the head
-- KEYS[3] prioritized  ZSET    job id by priority and arrival
-- KEYS[4] delayed      ZSET    job id by due time
-- KEYS[5] paused       LIST    left by BullMQ 5; drained after wait
-- KEYS[6] pc           STRING  deleted when prioritized is found empty
-- KEYS[7] marker       ZSET    wakes one blocked worker
-- KEYS[8] meta         HASH    queue settings
-- KEYS[9] events       STREAM
-- KEYS[10] limiter     STRING  activations in this window
-- KEYS[11] epoch       STRING  the name of this memory of Redis
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] options      msgpack map: token, max (jobs), lease_ms, promote_max (jobs),
--                      worker_name (optional), limit (optional: {max, window_ms} of this worker),
--                      whole (true: the hash of each job comes, too), heeds_limiter (true: one
--                      that was closed by hand holds without any limit, too), epoch and server
--                      (optional: nothing is claimed from another memory of Redis)
-- ARGV[3] test_now_ms  empty in production: server time is used
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, and their `:lock`.
--
-- Returns  {now_ms, next_due_ms or 0, rate_wait_ms or 0, held, ids,
--          JOB_FIELDS of each, whole hash of each}; held: 1 paused, or at the global
--          concurrency; 2 another memory of Redis
-- Moves    delayed -> wait | prioritized; wait | paused | prioritized -> active
-- Repeat   not safe: it claims further jobs. Those of a lost reply are rescued.

local key = { wait = KEYS[1], active = KEYS[2], prioritized = KEYS[3], delayed = KEYS[4],
  paused = KEYS[5], pc = KEYS[6], marker = KEYS[7], events = KEYS[9], limiter = KEYS[10] }
local delayed, events = key.delayed, key.events
local prefix, options, now = ARGV[1], cmsgpack.unpack(ARGV[2]), clock_ms(ARGV[3])
local now_text, lease_ms, meta = text(now), text(options.lease_ms), read_meta(KEYS[8])

-- As they were before this claim.
local JOB_FIELDS = { 'name', 'data', 'opts', 'timestamp', 'delay', 'priority', 'ats', 'atm', 'stc',
  'defa', 'parentKey', 'parent', 'rjk', 'deid', 'stacktrace', 'processedOn' }
local NAME, DATA, ATS, DEFA = 1, 2, 7, 10

if options.epoch and not is_memory(KEYS[11], options.epoch, options.server) then
  return { now, 0, 0, OTHER_MEMORY, {}, {}, {} }
end
promote_due(prefix, key, meta, now, options.promote_max)
local rate = read_rate(meta, options.limit)
local count, rate_wait_ms, held = room(key, meta, rate, options.max,
  options.heeds_limiter)
local claimed, rows, hashes, counted = {}, {}, {}, 0
local bytes = 0
for round = 1, ROUNDS_MAX do
  local wanted = math.min(count - #claimed, FIRST_ROUND * 2 ^ (round - 1))
  if wanted <= 0 or bytes >= BYTES_MAX then break end
  local ids, is_last = pop_next(key, wanted)
  local live = {}
  for i = 1, #ids do
    local id, job_key = ids[i], prefix .. ids[i]
    local row = call('HMGET', job_key, unpack(JOB_FIELDS))
    bytes = bytes + #(row[DATA] or '')
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
      if options.whole then hashes[#hashes + 1] = call('HGETALL', job_key) end
    end
  end
  call_many('LPUSH', key.active, live)
  if is_last then break end
end
count_started(key, rate, counted)
if #claimed > 0 then call('ZADD', key.marker, '0', '0') end -- the next sleeper looks, too

local first_due = tonumber(call('ZRANGE', delayed, '0', '0', 'WITHSCORES')[2])
local next_due_ms = first_due and math.floor(first_due / SCORES_PER_MS) or 0
return { now, next_due_ms, rate_wait_ms, held, claimed, rows, hashes }
