-- find_orphans: what is left of jobs that are gone, or that no state names.
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
-- ARGV[2…] ids              of keys that a scan found, or that a state names
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, their parts and locks.
--
-- Returns  per id '' or what is wrong: `hash` (a job in no state), `parts` (parts without a hash),
--          `lock` (a lock, and not active), `ghost` (in a state, without a hash)
-- Moves    nothing
-- Repeat   safe: reads only.

local SETS = { KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[8] }
local LISTS = { KEYS[5], KEYS[6], KEYS[7] }
local prefix, ids = ARGV[1], {}
for at = 2, #ARGV do ids[at - 1] = ARGV[at] end

local states, found = find_states(prefix, SETS, LISTS, ids), {}
for i = 1, #ids do
  local job_key, state = prefix .. ids[i], states[i]
  if state == 'absent' then
    found[i] = has_parts(job_key) and 'parts' or ''
  elseif state == 'orphan' then
    found[i] = is_job(job_key) and 'hash' or ''
  elseif call('EXISTS', job_key) == 0 then
    found[i] = 'ghost'
  else
    local is_locked = state ~= 'active' and call('EXISTS', job_key .. ':lock') == 1
    found[i] = is_locked and 'lock' or ''
  end
end
return found
