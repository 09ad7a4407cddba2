-- add: put new jobs into a queue, in the order given.
--
-- KEYS[1] id           STRING  counts every add, also of a duplicate
-- KEYS[2] wait         LIST    job ids without priority, next one at the tail
-- KEYS[3] prioritized  ZSET    job id by priority and arrival
-- KEYS[4] delayed      ZSET    job id by due time
-- KEYS[5] pc           STRING  counts arrivals
-- KEYS[6] marker       ZSET    wakes one blocked worker
-- KEYS[7] active       LIST    only measured, for the global concurrency
-- KEYS[8] meta         HASH    queue settings
-- KEYS[9] events       STREAM
-- KEYS[10] epoch       STRING  the name of this memory of Redis
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] test_now_ms  empty in production: server time is used
-- ARGV[3] epoch        empty: whatever memory it is
-- ARGV[4] not_after_ms empty: at any time
-- ARGV[5…] eleven per job: id, name, data, opts, timestamp_ms, due_ms or '', priority,
--          lifo '1' or '', attempts_started or '', attempts_made or '', whose or ''
--
-- Undeclared keys: the job hashes, `job_prefix .. id`.
--
-- Returns  the positions (from 1) of jobs that existed already and were left as they are; {-1}:
--          nothing was done, it is another memory; {-2}: nothing was done, it is too late
-- Moves    nothing -> wait | prioritized | delayed
-- Repeat   safe: a job whose hash exists is not added again.

local id_key, events, meta_key = KEYS[1], KEYS[9], KEYS[8]
local key = { wait = KEYS[2], prioritized = KEYS[3], delayed = KEYS[4], pc = KEYS[5],
  marker = KEYS[6], active = KEYS[7] }
local prefix, test_now_ms, epoch = ARGV[1], ARGV[2], ARGV[3]
local FIRST, STRIDE, OTHER_MEMORY, TOO_LATE = 5, 11, -1, -2

if epoch ~= '' and call('GET', KEYS[10]) ~= epoch then return { OTHER_MEMORY } end

local now = clock_ms(test_now_ms)
if ARGV[4] ~= '' and now > tonumber(ARGV[4]) then return { TOO_LATE } end
local meta = read_meta(meta_key)
if not meta.events_known then call('HSET', meta_key, 'opts.maxLenEvents', meta.events_max) end

local job_keys = {}
for at = FIRST, #ARGV, STRIDE do job_keys[#job_keys + 1] = prefix .. ARGV[at] end
call('INCRBY', id_key, #job_keys)
local any_exists = call_keys('EXISTS', job_keys) > 0

local batch, duplicates, seen = new_batch(), {}, {}
for position = 1, #job_keys do
  local at = FIRST + (position - 1) * STRIDE
  local id, job_key = ARGV[at], job_keys[position]
  if seen[id] or (any_exists and call('EXISTS', job_key) == 1) then
    duplicates[#duplicates + 1] = position
    call('XADD', events, '*', 'event', 'duplicated', 'jobId', id)
  else
    seen[id] = true
    local name, timestamp, due, priority = ARGV[at + 1], ARGV[at + 4], ARGV[at + 5], ARGV[at + 6]
    local starts = ARGV[at + 8]
    local due_ms = tonumber(due)
    local is_delayed = due_ms ~= nil and due_ms > now
    local delay = is_delayed and text(math.max(due_ms - tonumber(timestamp), 0)) or '0'
    if starts == '' then
      call('HSET', job_key, 'name', name, 'data', ARGV[at + 2], 'opts', ARGV[at + 3],
        'timestamp', timestamp, 'delay', delay, 'priority', priority)
    else
      call('HSET', job_key, 'name', name, 'data', ARGV[at + 2], 'opts', ARGV[at + 3],
        'timestamp', timestamp, 'delay', delay, 'priority', priority, 'ats', starts)
      if starts ~= '0' then -- put back: without it, it would look retried by hand
        call('HSET', job_key, 'processedOn', text(now))
      end
    end
    if ARGV[at + 9] ~= '' then call('HSET', job_key, 'atm', ARGV[at + 9]) end
    if meta.fair and ARGV[at + 10] ~= '' then call('HSET', job_key, 'gid', ARGV[at + 10]) end
    call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', name)
    if is_delayed then
      place_delayed(batch, key.delayed, id, due_ms)
      call('XADD', events, '*', 'event', 'delayed', 'jobId', id, 'delay', due)
    else
      place(batch, id, tonumber(priority), ARGV[at + 7] ~= '')
      announce_waiting(events, id)
    end
  end
end

flush(batch, key, meta)
trim_events(events, meta)
return duplicates
