-- schedule_next: an iteration has begun, so make the next one of its schedule.
--
-- KEYS[1] repeat       ZSET    schedule id by the due ms of its current iteration
-- KEYS[2] delayed      ZSET    job id by due time
-- KEYS[3] wait         LIST    job ids without priority, next one at the tail
-- KEYS[4] prioritized  ZSET    job id by priority and arrival
-- KEYS[5] pc           STRING  counts arrivals
-- KEYS[6] marker       ZSET    wakes one blocked worker
-- KEYS[7] active       LIST    only measured, for the global concurrency
-- KEYS[8] meta         HASH    queue settings
-- KEYS[9] events       STREAM
-- KEYS[10] id          STRING  counts every add
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] options      msgpack map: id, producer_id (job), its name and data, opts (JSON without
--                      its end), priority, lifo, dedup_id; due_ms of a pattern; or every_ms and
--                      offset_ms, like name and data for what the schedule's hash lacks
-- ARGV[3] test_now_ms  empty in production: server time is used
--
-- Undeclared keys: `repeat:id` (the schedule's hash) and `repeat:id:ms` (its iterations).
--
-- Returns  the job id of the next iteration; nil: the job is not the current iteration, or the
--          next one is there
-- Moves    nothing -> delayed | prioritized | wait
-- Repeat   safe: once the next iteration is made, the producer is not the current one any more.

local key, prefix, options = schedule_keys(), ARGV[1], cmsgpack.unpack(ARGV[2])
local now, hash_key = clock_ms(ARGV[3]), KEYS[1] .. ':' .. options.id

local previous = tonumber(call('ZSCORE', key.schedules, options.id))
if not previous then return false end
if options.producer_id ~= iteration_id(options.id, text(previous)) then return false end

local kept = call('HMGET', hash_key, 'name', 'data', 'every', 'offset', 'ic')
local every_ms, due_ms = tonumber(kept[3]) or options.every_ms, options.due_ms
if every_ms then
  local offset_ms = tonumber(kept[4]) or options.offset_ms or 0
  due_ms = next_due_ms(previous, every_ms, offset_ms, nil, now)
end
if not due_ms then return false end

local id, meta = iteration_id(options.id, text(due_ms)), read_meta(key.meta)
if call('EXISTS', prefix .. id) == 1 then
  call('XADD', key.events, '*', 'event', 'duplicated', 'jobId', id)
  trim_events(key.events, meta)
  return false
end

call('ZADD', key.schedules, text(due_ms), options.id)
call('HINCRBY', hash_key, 'ic', '1')
local data = kept[2]
-- Schedules of old versions have no data of their own: it goes from job to job.
if meta.v5_peers or not kept[5] then
  data = data or options.data
  if data ~= '{}' then call('HSET', hash_key, 'data', data) end
end
add_iteration(key, prefix, options, id, kept[1] or options.name, data or '{}', due_ms, now)
if meta.v5_peers then call('HSET', prefix .. options.producer_id, 'nrjid', id) end
return id
