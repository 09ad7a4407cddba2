-- pause: no job of this queue starts until it is resumed. Jobs stay where they are.
--
-- KEYS[1] meta         HASH    queue settings
-- KEYS[2] marker       ZSET    deleted: nobody needs to wake up
-- KEYS[3] events       STREAM
--
-- Returns  1 if the queue was running, 0 if it was paused already
-- Moves    nothing
-- Repeat   safe: the second time nothing is announced.

local meta_key, marker, events = KEYS[1], KEYS[2], KEYS[3]

local was_running = call('HSETNX', meta_key, 'paused', '1')
call('DEL', marker)
if was_running == 1 then call('XADD', events, '*', 'event', 'paused') end
return was_running
