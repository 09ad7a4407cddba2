-- pass_turn: a job that was told to come back for quota does not need it, so another one comes now.
--
-- KEYS[1] lines        ZSET    of those who come back, by the last moment that was given away
-- KEYS[2] tickets      ZSET    job and queue by the moment when it is to come back
-- KEYS[3] costs        HASH    of tickets that cost more than one
-- ARGV[1] ticket       of the job
-- ARGV[2] jobs         start of the keys of queues
-- ARGV[3] test_now_ms  empty in production: server time is used
--
-- Undeclared keys: jobs of tickets and settings of their queues, `jobs:QUEUE:ID` and
-- `jobs:QUEUE:meta`.
--
-- Returns  the ticket of the job that the caller is to promote, or nothing
-- Moves    nothing
-- Repeat   safe: a turn is passed on once.
--
-- Everybody has a moment of their own, so nobody else would use this one. The last of those who
-- wait comes in its place: then nobody's moment moves, and what becomes free is at the end.

-- What is sooner than that comes soon enough.
local SOON_MS = 1000

local keys, now = { lines = KEYS[1], tickets = KEYS[2], costs = KEYS[3] }, clock_ms(ARGV[3])
if not call('ZSCORE', keys.tickets, ARGV[1]) then return end
drop_tickets(keys, { ARGV[1] })
trim_lines(keys, new_look(ARGV[2]), now)
local last = call('ZREVRANGE', keys.tickets, 0, 0, 'WITHSCORES')
local ended = tonumber(last[2])
if not ended or ended < now + SOON_MS then return end
call('ZADD', keys.tickets, text(now), last[1])
shorten_lines(keys, { [ended] = true },
  tonumber(call('ZREVRANGE', keys.tickets, 0, 0, 'WITHSCORES')[2]))
return last[1]
