-- pause: no job of this queue starts until it is resumed.
--
-- KEYS[1] meta         HASH    queue settings
-- KEYS[2] marker       ZSET    deleted: nobody needs to wake up
-- KEYS[3] events       STREAM
-- KEYS[4] wait         LIST    job ids without priority, next one at the tail
-- KEYS[5] paused       LIST    where BullMQ 5 looks for them while the queue is paused
-- ARGV[1] merge_max    ids merged at most; call again until none is left
--
-- Returns  {1 if the queue was running, ids left in wait that belong to paused}
-- Moves    nothing; with peers of version 5: wait -> paused, behind those that wait there
-- Repeat   safe: the second time nothing is announced.

local meta_key, marker, events, wait, paused = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local merge_max = tonumber(ARGV[1])

local was_running = call('HSETNX', meta_key, 'paused', '1')
call('DEL', marker)
if was_running == 1 then call('XADD', events, '*', 'event', 'paused') end
if not read_meta(meta_key).v5_peers or call('EXISTS', wait) == 0 then return { was_running, 0 } end

if call('EXISTS', paused) == 0 then
  call('RENAME', wait, paused)
  return { was_running, 0 }
end
-- Next one first: the last one pushed is the newest.
call_many('LPUSH', paused, call('RPOP', wait, merge_max))
return { was_running, call('LLEN', wait) }
