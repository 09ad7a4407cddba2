-- schedule_repair: a schedule whose current iteration is over or lost goes on.
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
-- ARGV[2] options      msgpack map: id, name, data, opts (JSON without its end), priority, lifo,
--                      dedup_id; due_ms of a pattern, or every_ms and offset_ms; and what the
--                      caller saw: tick_ms (the current iteration), is_again (it was lost before
--                      it was due), is_orphan (it is in no state)
-- ARGV[3] test_now_ms  empty in production: server time is used
--
-- Undeclared keys: `repeat:id` (the schedule's hash) and `repeat:id:ms` (its iterations).
--
-- Returns  the job id of the current iteration; nil: nothing had to be done
-- Moves    nothing -> delayed | prioritized | wait
-- Repeat   safe: the first call makes an iteration that is alive, which the next ones leave alone.

local key, prefix, options = schedule_keys(), ARGV[1], cmsgpack.unpack(ARGV[2])
local now, hash_key = clock_ms(ARGV[3]), KEYS[1] .. ':' .. options.id

local tick_ms = tonumber(call('ZSCORE', key.schedules, options.id))
if tick_ms ~= options.tick_ms then return false end
local current_key = prefix .. iteration_id(options.id, text(tick_ms))
local is_there = call('EXISTS', current_key) == 1
if is_there and not options.is_orphan and not call('HGET', current_key, 'finishedOn') then
  return false
end

local due_ms = options.due_ms
if options.is_again then
  -- A tick that has passed counts as run: rather none than two.
  if is_there or tick_ms <= now then return false end
  due_ms = tick_ms
elseif options.every_ms then
  local offset_ms = tonumber(call('HGET', hash_key, 'offset')) or options.offset_ms or 0
  due_ms = next_due_ms(tick_ms, options.every_ms, offset_ms, nil, now)
end
if not due_ms then return false end

local id = iteration_id(options.id, text(due_ms))
call('ZADD', key.schedules, text(due_ms), options.id)
-- Made already, and only not known as the current one.
if call('EXISTS', prefix .. id) == 1 then return id end
if not options.is_again then call('HINCRBY', hash_key, 'ic', '1') end
add_iteration(key, prefix, options, id, options.name, options.data, due_ms, now)
return id
