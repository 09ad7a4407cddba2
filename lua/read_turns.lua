-- read_turns: all who wait for the quota of a key, and when they come.
--
-- KEYS[1] tickets      ZSET    job and queue by the moment when it is to come back
-- KEYS[2] costs        HASH    of tickets that cost more than one
-- ARGV[1] test_now_ms  empty in production: server time is used
--
-- Returns  {now_ms, tickets, their moments, their costs}, the soonest first; nobody whose moment is
--          over
-- Moves    nothing
-- Repeat   safe: only reads.

local now = clock_ms(ARGV[1])
local flat = call('ZRANGEBYSCORE', KEYS[1], '(' .. text(now), '+inf', 'WITHSCORES', 'LIMIT', 0,
  TICKETS_MAX)
local tickets, moments, costs = {}, {}, {}
for i = 1, #flat, 2 do
  tickets[#tickets + 1], moments[#moments + 1] = flat[i], tonumber(flat[i + 1])
end
for first = 1, #tickets, UNPACK_MAX do
  local last = math.min(first + UNPACK_MAX - 1, #tickets)
  local some = call('HMGET', KEYS[2], unpack(tickets, first, last))
  for i = 1, #some do costs[#costs + 1] = tonumber(some[i]) or 1 end
end
return { now, tickets, moments, costs }
