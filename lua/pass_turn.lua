-- pass_turn: a job that was told to come back for quota does not need it, so another one comes now.
--
-- KEYS[1] lines        ZSET    who comes back, by the last moment that was given away
-- KEYS[2] tickets      ZSET    job and queue by the moment when it is to come back
-- ARGV[1] ticket       of the job
-- ARGV[2] test_now_ms  empty in production: server time is used
--
-- Returns  the ticket of the job that the caller is to promote, or nothing
-- Moves    nothing
-- Repeat   safe: a turn is passed on once.
--
-- Everybody has a moment of their own, so nobody else would use this one. The last of those who
-- wait comes in its place: then nobody's moment moves, and what becomes free is at the end.

-- What is sooner than that comes soon enough.
local SOON_MS = 1000

local lines, tickets, now = KEYS[1], KEYS[2], clock_ms(ARGV[2])
if call('ZREM', tickets, ARGV[1]) == 0 then return end
local last = call('ZREVRANGE', tickets, 0, 0, 'WITHSCORES')
if not last[1] or tonumber(last[2]) < now + SOON_MS then return end
call('ZADD', tickets, text(now), last[1])
-- Only of the line that ended there: behind others there may be jobs that have no ticket.
local at = call('ZREVRANGE', tickets, 0, 0, 'WITHSCORES')[2]
for _, line in ipairs(call('ZRANGEBYSCORE', lines, last[2], last[2])) do
  call('ZADD', lines, at, line)
end
return last[1]
