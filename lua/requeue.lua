-- requeue: make finished, lost or half-lost jobs wait again, as the record has them.
--
-- KEYS[1] id                STRING  counts added jobs
-- KEYS[2] wait              LIST    job ids without priority, next one at the tail
-- KEYS[3] prioritized       ZSET    job id by priority and arrival
-- KEYS[4] delayed           ZSET    job id by due time
-- KEYS[5] pc                STRING  counts arrivals
-- KEYS[6] marker            ZSET    wakes one blocked worker
-- KEYS[7] active            LIST
-- KEYS[8] meta              HASH    queue settings
-- KEYS[9] events            STREAM
-- KEYS[10] completed        ZSET
-- KEYS[11] failed           ZSET
-- KEYS[12] waiting_children ZSET
-- KEYS[13] paused           LIST    left by BullMQ 5
-- ARGV[1] job_prefix        start of a job's hash key
-- ARGV[2] test_now_ms       empty in production: server time is used
-- ARGV[3…] eleven per job: id, name, data, opts, timestamp_ms, due_ms or '', priority,
--          lifo '1' or '', attempts_started or '', attempts_made or '', whose or ''
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, and their parents' keys, in whatever queue.
--
-- Returns  the positions (from 1) of jobs that were left as they are: live ones, below zero if an
--          earlier start than the wanted one is active; and finished ones, started that often
-- Moves    completed | failed | no state | nothing | delayed for too long
--          -> wait | prioritized | delayed.
--          A live id whose hash is gone gets its hash back and stays where it is.
-- Repeat   safe: the second time the job is live, or has run since.

local id_key, delayed, events = KEYS[1], KEYS[4], KEYS[9]
local key = { wait = KEYS[2], prioritized = KEYS[3], delayed = delayed, pc = KEYS[5],
  marker = KEYS[6], active = KEYS[7] }
local LIVE_SETS, LISTS = { KEYS[3], KEYS[4], KEYS[12] }, { KEYS[2], KEYS[13] }
local completed, failed = KEYS[10], KEYS[11]
local prefix, now, meta = ARGV[1], clock_ms(ARGV[2]), read_meta(KEYS[8])
local FIRST, STRIDE = 3, 11

-- The lists may be long; only jobs without a priority are in them, and all are looked for at once.
local listed = {}
do
  local ids = {}
  for at = FIRST, #ARGV, STRIDE do
    local known = call('HGET', prefix .. ARGV[at], 'priority')
    if (tonumber(known or ARGV[at + 6]) or 0) == 0 then ids[#ids + 1] = ARGV[at] end
  end
  local states = #ids > 0 and find_states(prefix, {}, LISTS, ids) or {}
  for i = 1, #states do listed[ids[i]] = states[i] ~= 'orphan' and states[i] ~= 'absent' end
end

local function starts_of(id) return tonumber(call('HGET', prefix .. id, 'ats')) or 0 end

local function is_active(id) return call('LPOS', key.active, id) ~= false end

local function is_live(id)
  if listed[id] or is_active(id) then return true end
  for i = 1, #LIVE_SETS do
    if call('ZSCORE', LIVE_SETS[i], id) then return true end
  end
  return false
end

-- Another process may have asked for the same start, and it is over.
local function has_run_since(id, starts)
  local before = starts_of(id)
  return before > 0 and before >= starts
    and (call('ZSCORE', completed, id) or call('ZSCORE', failed, id))
end

local function leave_finished(id)
  if call('ZREM', failed, id) == 1 then return 'failed' end
  if call('ZREM', completed, id) == 1 then return 'completed' end
end

local function write_hash(job_key, at, delay)
  call('HDEL', job_key, 'finishedOn', 'processedOn', 'returnvalue', 'failedReason', 'stacktrace',
    'defa', 'stc', 'ats', 'atm')
  call('HSET', job_key, 'name', ARGV[at + 1], 'data', ARGV[at + 2], 'opts', ARGV[at + 3],
    'timestamp', ARGV[at + 4], 'delay', delay, 'priority', ARGV[at + 6])
  local more = { ats = ARGV[at + 8], atm = ARGV[at + 9], gid = meta.fair and ARGV[at + 10] or '' }
  for field, value in pairs(more) do if value ~= '' then call('HSET', job_key, field, value) end end
end

local batch, untouched, created, placed = new_batch(), {}, 0, {} -- placed: not written yet
for at = FIRST, #ARGV, STRIDE do
  local id, job_key, starts = ARGV[at], prefix .. ARGV[at], tonumber(ARGV[at + 8]) or 0
  local exists = call('EXISTS', job_key) == 1
  local due_ms = tonumber(ARGV[at + 5])
  local has_run = has_run_since(id, starts)
  local prev = not has_run and leave_finished(id)
  local is_older = exists and not prev and starts_of(id) < starts -- else its delay is newer, too
  local was_late = is_older and not placed[id] and leave_late(delayed, id, due_ms, now)
  if has_run or placed[id] or (exists and not prev and not was_late and is_live(id)) then
    local position = (at - FIRST) / STRIDE + 1
    local is_ending = not placed[id] and is_active(id) and starts_of(id) < starts
    untouched[#untouched + 1] = is_ending and -position or position
  else
    local is_delayed = due_ms ~= nil and due_ms > now
    local delay_ms = is_delayed and math.max(due_ms - tonumber(ARGV[at + 4]), 0) or 0
    write_hash(job_key, at, text(delay_ms))
    if prev then pend_again(job_key, prev) end
    placed[id] = true
    if not exists then
      created = created + 1
      call('XADD', events, '*', 'event', 'added', 'jobId', id, 'name', ARGV[at + 1])
    end
    if prev or exists or not is_live(id) then
      if is_delayed then
        place_delayed(batch, delayed, id, due_ms)
        call('XADD', events, '*', 'event', 'delayed', 'jobId', id, 'delay', ARGV[at + 5])
      else
        place(batch, id, tonumber(ARGV[at + 6]), ARGV[at + 7] ~= '')
        announce_waiting(events, id, prev or was_late or nil)
      end
    end
  end
end
if created > 0 then call('INCRBY', id_key, created) end
flush(batch, key, meta)
trim_events(events, meta)
return untouched
