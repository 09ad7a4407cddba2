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

local STATES = { 'prioritized', 'delayed', 'completed', 'failed', 'waiting-children' }
local SETS = { KEYS[4], KEYS[5], KEYS[7], KEYS[8], KEYS[6] }
local LISTS = { active = KEYS[3], wait = KEYS[1], paused = KEYS[2] }
local LIST_ORDER = { 'active', 'wait', 'paused' }
local stalled, repeat_key, marker, events = KEYS[9], KEYS[10], KEYS[11], KEYS[13]
local prefix, meta = ARGV[1], read_meta(KEYS[12])

local function is_current_iteration(schedule_id, id)
  local at = call('ZSCORE', repeat_key, schedule_id)
  return at and id == 'repeat:' .. schedule_id .. ':' .. text(tonumber(at))
end

local function leave(id)
  for i = 1, #SETS do
    if call('ZREM', SETS[i], id) == 1 then return STATES[i] end
  end
  for i = 1, #LIST_ORDER do
    if call('LREM', LISTS[LIST_ORDER[i]], -1, id) > 0 then return LIST_ORDER[i] end
  end
end

local answers, doomed, locks, gone, left_active = {}, {}, {}, {}, false
for at = 2, #ARGV do
  local id, job_key = ARGV[at], prefix .. ARGV[at]
  local job = call('HMGET', job_key, 'deid', 'rjk', 'parentKey')
  local state
  if job[2] and is_current_iteration(job[2], id) then
    state = 'scheduled'
  else
    local is_orphan = not gone[id] and call('EXISTS', job_key) == 1
    state = leave(id) or (is_orphan and 'unknown') or 'absent'
    if state ~= 'absent' then
      if job[1] then forget_dedup(prefix, job[1], id) end
      if job[3] then detach_from_parent(job_key, job[3]) end
      gone[id] = true -- its keys are deleted after the last id
      doomed[#doomed + 1] = job_key
      locks[#locks + 1] = job_key .. ':lock'
      if state == 'active' then
        left_active = true
        call('SREM', stalled, id)
      end
      call('XADD', events, '*', 'event', 'removed', 'jobId', id, 'prev', state)
    end
  end
  answers[#answers + 1] = state
end
delete_jobs(doomed)
call_keys('DEL', locks)
if left_active then wake(marker, meta, LISTS.active) end -- a slot of the queue is free
if #doomed > 0 then trim_events(events, meta) end
return answers
