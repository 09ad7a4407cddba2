-- schedule_restore: give schedules back that Redis forgot, or of which it knows an older state.
--
-- KEYS[1] repeat       ZSET    schedule id by the due ms of its current iteration
-- ARGV[1…] three per schedule: id, due_ms, its hash as a msgpack list, field after value
--
-- Undeclared keys: `repeat:id`, the schedules' hashes.
--
-- Returns  how many were given back
-- Moves    nothing; the iterations come back as jobs, or by schedule_repair
-- Repeat   safe: a schedule that is there and not older is left as it is.

local schedules, restored = KEYS[1], 0
for at = 1, #ARGV, 3 do
  local id, due_ms, fields = ARGV[at], ARGV[at + 1], cmsgpack.unpack(ARGV[at + 2])
  local known_ms = tonumber(call('ZSCORE', schedules, id))
  if not known_ms or known_ms < tonumber(due_ms) then
    call('ZADD', schedules, due_ms, id)
    call('DEL', schedules .. ':' .. id)
    call_many('HSET', schedules .. ':' .. id, fields)
    restored = restored + 1
  end
end
return restored
