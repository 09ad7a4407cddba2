-- remove_orphans: delete jobs that are in no state, and what is left of jobs without a hash.
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
-- ARGV[2…] ids              of keys that a scan found; they need not be jobs
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, their parts and locks, `de:…` and `dn:…`,
--                  and the keys of parents, in whatever queue.
--
-- Returns  the ids whose keys were deleted
-- Moves    no state -> removed. A parent whose last pending child goes is released.
-- Repeat   safe: what was deleted is not found again.

local SETS = { KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[8] }
local LISTS = { KEYS[5], KEYS[6], KEYS[7] }
local prefix, ids = ARGV[1], {}
local key = every_key(prefix:sub(1, -2))
for at = 2, #ARGV do ids[at - 1] = ARGV[at] end

local states, doomed, removed = find_states(prefix, SETS, LISTS, ids), {}, {}
for i = 1, #ids do
  local job_key = prefix .. ids[i]
  if (states[i] == 'orphan' and is_job(job_key))
    or (states[i] == 'absent' and has_parts(job_key)) then
    untie(key, ids[i], false)
    doomed[#doomed + 1] = job_key
    removed[#removed + 1] = ids[i]
  end
end
delete_with_locks(doomed)
return removed
