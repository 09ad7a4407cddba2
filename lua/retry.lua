-- retry: an attempt ended without an outcome; the job runs again, at once or after a delay.
--
-- KEYS[1] active       LIST
-- KEYS[2] stalled      SET     suspects
-- KEYS[3] wait         LIST    job ids without priority, next one at the tail
-- KEYS[4] prioritized  ZSET    job id by priority and arrival
-- KEYS[5] delayed      ZSET    job id by due time
-- KEYS[6] pc           STRING  counts arrivals
-- KEYS[7] marker       ZSET    wakes one blocked worker
-- KEYS[8] meta         HASH    queue settings
-- KEYS[9] events       STREAM
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] test_now_ms  empty in production: server time is used
-- ARGV[3] needs_lock   '1': the lock must be there, '': only not another attempt's
-- ARGV[4…] seven per job: id, token, delay_ms or '' (at once), counts the attempt '1' or ''
--          (snooze), lifo '1' or '', reason or '' (kept as it is), stacktrace (JSON array) or ''
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, and their `:lock`.
--
-- Returns  {position, code, …} of jobs left as they are: -1 no hash, -2 no lock, -3 not active,
--          -6 the lock is another attempt's
-- Moves    active -> wait | prioritized | delayed
-- Repeat   safe: a job that left active is not touched again.

local active, stalled, delayed, events = KEYS[1], KEYS[2], KEYS[5], KEYS[9]
local key = { wait = KEYS[3], prioritized = KEYS[4], delayed = delayed, pc = KEYS[6],
  marker = KEYS[7], active = active, events = events }
local prefix, now, meta = ARGV[1], clock_ms(ARGV[2]), read_meta(KEYS[8])
local FIRST, STRIDE = 4, 7

local ids, tokens = {}, {}
for at = FIRST, #ARGV, STRIDE do
  ids[#ids + 1] = ARGV[at]
  tokens[#tokens + 1] = ARGV[at + 1]
end
local codes, done = take_active(prefix, active, stalled, ids, tokens, ARGV[3] ~= '')
if done == 0 then return refusals(codes) end
trim_events(events, meta) -- before anything is added: what is new must be heard

-- What is due goes before what only failed now: the contract.
local PROMOTE_MAX = 1000
for i = 1, #ids do
  if codes[i] == DONE and ARGV[FIRST + (i - 1) * STRIDE + 2] == '' then
    promote_due(prefix, key, meta, now, PROMOTE_MAX)
    break
  end
end

local batch = new_batch()
for i = 1, #ids do
  if codes[i] == DONE then
    local at, id = FIRST + (i - 1) * STRIDE, ids[i]
    local job_key, delay_ms = prefix .. id, tonumber(ARGV[at + 2])
    local fields = {}
    local function set(name, value)
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
    local job = call('HMGET', job_key, 'atm', 'priority')
    if ARGV[at + 3] ~= '' then set('atm', text((tonumber(job[1]) or 0) + 1)) end
    if ARGV[at + 5] ~= '' then set('failedReason', ARGV[at + 5]) end
    if ARGV[at + 6] ~= '' then set('stacktrace', ARGV[at + 6]) end
    if delay_ms then
      set('delay', ARGV[at + 2])
      place_delayed(batch, delayed, id, now + delay_ms)
      call('XADD', events, '*', 'event', 'delayed', 'jobId', id, 'delay', text(now + delay_ms))
    else
      place(batch, id, tonumber(job[2]) or 0, ARGV[at + 4] ~= '')
      announce_waiting(events, id, 'active')
    end
    call_many('HSET', job_key, fields)
  end
end
flush(batch, key, meta)
wake_for_slot(key.marker, meta)
return refusals(codes)
