-- schedule_upsert: make a schedule, or change it; its current iteration is made anew.
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
--                      dedup_id; every_ms or due_ms; offset_ms, start_ms; and
--                      fields: what the schedule's hash is to say, field after value
-- ARGV[3] test_now_ms  empty in production: server time is used
--
-- Undeclared keys: `repeat:id` (the schedule's hash) and `repeat:id:ms` (its iterations).
--
-- Returns  {job id of the current iteration, its delay in ms}; -10: the job of this moment exists
--          already; -11: so do those of the next moments
-- Moves    delayed | prioritized | wait -> nothing; nothing -> delayed | prioritized | wait
-- Repeat   safe: the same iteration is made again.

local key, prefix, options = schedule_keys(), ARGV[1], cmsgpack.unpack(ARGV[2])
local now, hash_key = clock_ms(ARGV[3]), KEYS[1] .. ':' .. options.id
local every_ms, due_ms = options.every_ms, options.due_ms
local SLOTS_MAX = 32

local previous = call('ZSCORE', key.schedules, options.id)
local kept = call('HMGET', hash_key, 'every', 'offset', 'ic')
local offset_ms = options.offset_ms or 0
local is_same_interval = every_ms and previous and tonumber(kept[1]) == every_ms
if every_ms then
  due_ms, offset_ms = next_due_ms(is_same_interval and tonumber(previous), every_ms, offset_ms,
    options.start_ms, now)
else
  due_ms = math.max(due_ms, now)
end

local is_replaced = previous
  and take_back(key, prefix, iteration_id(options.id, text(tonumber(previous))))
if is_replaced then
  if is_same_interval then due_ms = tonumber(previous) end
  offset_ms = options.offset_ms or tonumber(kept[2])
end

local function is_taken()
  return call('EXISTS', prefix .. iteration_id(options.id, text(due_ms))) == 1
end

if every_ms then
  local slots = 0
  while is_taken() do
    if slots == SLOTS_MAX then return -11 end
    due_ms, slots = due_ms + every_ms, slots + 1
  end
elseif is_taken() and not is_replaced then
  return -10
end

call('ZADD', key.schedules, text(due_ms), options.id)
local fields = options.fields
if offset_ms then
  fields[#fields + 1] = 'offset'
  fields[#fields + 1] = text(offset_ms)
end
fields[#fields + 1] = 'ic'
fields[#fields + 1] = kept[3] or '1'
call('DEL', hash_key)
call_many('HSET', hash_key, fields)

local id = iteration_id(options.id, text(due_ms))
add_iteration(key, prefix, options, id, options.name, options.data, due_ms, now)
return { id, math.max(due_ms - now, 0) }
