-- states: where each job is.
--
-- KEYS[1] completed         ZSET
-- KEYS[2] failed            ZSET
-- KEYS[3] delayed           ZSET
-- KEYS[4] prioritized       ZSET
-- KEYS[5] active            LIST
-- KEYS[6] wait              LIST
-- KEYS[7] paused            LIST    left by BullMQ 5
-- KEYS[8] waiting_children  ZSET
-- ARGV[1] job_prefix        start of a job's hash key
-- ARGV[2…] ids
--
-- Undeclared keys: the job hashes, `job_prefix .. id`.
--
-- Returns  per job `completed`, `failed`, `delayed`, `prioritized`, `active`, `wait`, `paused`,
--          `waiting-children`, `orphan` (a hash in no state) or `absent`
-- Moves    nothing
-- Repeat   safe: reads only.

local SETS = { KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[8] }
local LISTS = { KEYS[5], KEYS[6], KEYS[7] }
local prefix, ids = ARGV[1], {}
for at = 2, #ARGV do ids[at - 1] = ARGV[at] end
return find_states(prefix, SETS, LISTS, ids)
