-- cancel: take jobs out of whatever state they are in, and delete them.
--
-- KEYS[1] wait              LIST
-- KEYS[2] paused            LIST    left by BullMQ 5
-- KEYS[3] active            LIST
-- KEYS[4] prioritized       ZSET
-- KEYS[5] delayed           ZSET
-- KEYS[6] waiting_children  ZSET
-- KEYS[7] completed         ZSET
-- KEYS[8] failed            ZSET
-- KEYS[9] stalled           SET     suspects
-- KEYS[10] repeat           ZSET    current iteration of each schedule
-- KEYS[11] marker           ZSET    wakes one blocked worker
-- KEYS[12] meta             HASH    queue settings
-- KEYS[13] events           STREAM
-- ARGV[1] job_prefix        start of a job's hash key
-- ARGV[2…] ids
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, their parts and locks, `de:…` and `dn:…`,
--                  and the keys of parents, in whatever queue.
--
-- Returns  per job the state it was in, `unknown` for a hash in no state, `absent` when there
--          was nothing, `scheduled` for the current iteration of a schedule, which stays
-- Moves    any state -> removed. An active job's lock goes, too: its owner loses the lease.
-- Repeat   safe: the second time the job is absent.

-- Makes the same keys as those above, which are declared for servers that insist.
local key = every_key(ARGV[1]:sub(1, -2))
local marker, events, prefix, meta = KEYS[11], KEYS[13], ARGV[1], read_meta(KEYS[12])

local answers, doomed, gone, left_active = {}, {}, {}, false
for at = 2, #ARGV do
  local id, job_key = ARGV[at], prefix .. ARGV[at]
  local state
  if is_current_iteration(key, id) then
    state = 'scheduled'
  else
    local is_orphan = not gone[id] and call('EXISTS', job_key) == 1
    state = leave(key, id) or (is_orphan and 'unknown') or 'absent'
    if state ~= 'absent' then
      untie(key, id, false)
      gone[id] = true -- its keys are deleted after the last id
      doomed[#doomed + 1] = job_key
      left_active = left_active or state == 'active'
      announce_removed(key, id, state)
    end
  end
  answers[#answers + 1] = state
end
delete_with_locks(doomed)
if left_active then wake(marker, meta, key.active) end -- a slot of the queue is free
if #doomed > 0 then trim_events(events, meta) end
return answers
