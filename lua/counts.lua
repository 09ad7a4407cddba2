-- counts: how many jobs are in each state, at one moment.
--
-- KEYS[1] wait              LIST
-- KEYS[2] paused            LIST    left by BullMQ 5
-- KEYS[3] active            LIST
-- KEYS[4] prioritized       ZSET
-- KEYS[5] delayed           ZSET
-- KEYS[6] waiting_children  ZSET
-- KEYS[7] completed         ZSET
-- KEYS[8] failed            ZSET
-- KEYS[9] meta              HASH    queue settings
--
-- Returns  the eight counts in the order of KEYS, then 1 if the queue is paused
-- Moves    nothing
-- Repeat   safe: reads only.

local LISTS, SETS, meta_key = 3, 8, KEYS[9]

local counts = {}
for i = 1, LISTS do counts[i] = call('LLEN', KEYS[i]) end
for i = LISTS + 1, SETS do counts[i] = call('ZCARD', KEYS[i]) end
counts[#counts + 1] = call('HEXISTS', meta_key, 'paused')
return counts
