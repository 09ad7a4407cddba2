-- move_turns: jobs that wait for quota were put off to other moments; their turns go with them.
--
-- KEYS[1] lines        ZSET    of those who come back, by the last moment that was given away
-- KEYS[2] tickets      ZSET    job and queue by the moment when it is to come back
-- ARGV[1] moves        msgpack list, each {ticket, its moment so far, its moment from now on}
-- ARGV[2] last_ms      where the line ends that they stand in now
-- ARGV[3] test_now_ms  empty in production: server time is used
--
-- Returns  0
-- Moves    nothing
-- Repeat   safe: who was told something else meanwhile keeps that.

local lines, tickets, now = KEYS[1], KEYS[2], clock_ms(ARGV[3])
for _, move in ipairs(cmsgpack.unpack(ARGV[1])) do
  if tonumber(call('ZSCORE', tickets, move[1])) == move[2] then
    call('ZADD', tickets, text(move[3]), move[1])
  end
end
local ttl = call('PTTL', tickets)
call('DEL', lines)
if ttl > 0 and tonumber(ARGV[2]) > now then
  call('ZADD', lines, ARGV[2], 'batch ' .. text(now))
  call('PEXPIRE', lines, text(ttl))
end
return 0
