-- obliterate: delete a paused queue, a bounded part per call.
--
-- KEYS[1] meta         HASH    queue settings
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] max          jobs deleted by this call
-- ARGV[3] force        '1': active jobs, too, whoever works on them; '': refuse
-- ARGV[4] last         '1': no job is left, delete what the queue itself has; '': do not
-- ARGV[5…] suffixes of `de:…` and `dn:…` keys that go with the queue
--
-- Undeclared keys: all of the queue, and all of the queues of parents.
--
-- Returns  0 no job is left, and with `last` nothing is; 1 call again; -1 the queue is not
--          paused; -2 it has active jobs
-- Moves    any state -> removed
-- Repeat   safe: the second time the queue is not paused, as it is gone.

local prefix, left = ARGV[1], tonumber(ARGV[2])
local key, queue_meta = every_key(ARGV[1]:sub(1, -2)), KEYS[1]
local NOTHING_LEFT, MORE, NOT_PAUSED, HAS_ACTIVE = 0, 1, -1, -2
local OWN = { 'active', 'wait', 'paused', 'delayed', 'prioritized', 'waiting-children', 'completed',
  'failed', 'repeat', 'events', 'delay', 'priority', 'stalled-check', 'stalled', 'id', 'pc',
  'marker', 'limiter', 'meta', 'metrics:completed', 'metrics:completed:data', 'metrics:failed',
  'metrics:failed:data' }

if call('HEXISTS', queue_meta, 'paused') == 0 then return NOT_PAUSED end
if ARGV[3] == '' and call('LLEN', key.active) > 0 then return HAS_ACTIVE end

local function delete_all(ids)
  local doomed = {}
  for i = 1, #ids do doomed[i] = prefix .. ids[i] end
  for i = 1, #ids do untie(key, ids[i], true) end
  delete_with_locks(doomed)
  left = left - #ids
end

for i = 1, #LIST_STATES do
  local list = prefix .. LIST_STATES[i]
  local ids = left > 0 and call('LRANGE', list, '0', text(left - 1)) or {}
  call('LTRIM', list, #ids, -1)
  delete_all(ids)
end
for i = 1, #SET_STATES do
  local set = prefix .. SET_STATES[i]
  local ids = left > 0 and call('ZRANGE', set, '0', text(left - 1)) or {}
  call_many('ZREM', set, ids)
  delete_all(ids)
end
local schedules = left > 0 and call('ZRANGE', key.schedules, '0', text(left - 1)) or {}
call_many('ZREM', key.schedules, schedules)
for i = 1, #schedules do schedules[i] = prefix .. 'repeat:' .. schedules[i] end
call_keys('DEL', schedules)
if left - #schedules <= 0 then return MORE end
if ARGV[4] == '' then return NOTHING_LEFT end

local last = {}
for i = 1, #OWN do last[i] = prefix .. OWN[i] end
last[#last + 1] = 'bullwark:' .. prefix .. 'turns'
for i = 5, #ARGV do last[#last + 1] = prefix .. ARGV[i] end
call_keys('DEL', last)
return NOTHING_LEFT
