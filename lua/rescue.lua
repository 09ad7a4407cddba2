-- rescue: the stalled check. Suspects without a lock go back to waiting; all others that are
-- active become suspects until their owner extends the lock.
--
-- KEYS[1] stalled        SET     suspects of the last check
-- KEYS[2] wait           LIST    job ids without priority, next one at the tail
-- KEYS[3] active         LIST
-- KEYS[4] stalled_check  STRING  exists while another worker's check is recent
-- KEYS[5] marker         ZSET    wakes one blocked worker
-- KEYS[6] meta           HASH    queue settings
-- KEYS[7] events         STREAM
-- KEYS[8] repeat         ZSET    current iteration of each schedule
-- ARGV[1] job_prefix     start of a job's hash key
-- ARGV[2] interval_ms    time until the next check
-- ARGV[3] stalled_max    rescues of one job before it fails at its next claim
-- ARGV[4] own_max        the same of a job that Bullwark accepted
-- ARGV[5] rescued_max    no further suspects are looked at when so many were put back; the others
--                        are in the next check
-- ARGV[6] active_max     active jobs marked as suspects, oldest first
-- ARGV[7] test_now_ms    empty in production: server time is used
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, their `:lock`, and `repeat:…`.
--
-- Returns  the ids that were put back
-- Moves    active -> wait
-- Repeat   safe: within the interval nothing happens.

local stalled, wait, active, stalled_check = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local marker, events, repeat_key = KEYS[5], KEYS[7], KEYS[8]
local prefix, interval_ms = ARGV[1], ARGV[2]
local stalled_max, own_max = tonumber(ARGV[3]), tonumber(ARGV[4])
local rescued_max, active_max, now = tonumber(ARGV[5]), tonumber(ARGV[6]), clock_ms(ARGV[7])
local PAGE = math.min(rescued_max, 1000)

if not call('SET', stalled_check, text(now), 'PX', interval_ms, 'NX') then return {} end
local meta = read_meta(KEYS[6])

-- BullMQ never fails a scheduled job for stalling: its schedule would end with it.
local function belongs_to_schedule(schedule_id)
  return call('EXISTS', prefix .. 'repeat:' .. schedule_id) == 1
    or call('ZSCORE', repeat_key, schedule_id) ~= false
end

local rescued = {}
local function judge(id)
  local job_key = prefix .. id
  if call('LREM', active, -1, id) == 1 then
    local job = call('HMGET', job_key, 'name', 'rjk', 'opts')
    if job[1] or call('EXISTS', job_key) == 1 then -- an id without a hash just leaves
      local count = call('HINCRBY', job_key, 'stc', 1)
      local is_own = job[3] and job[3]:find('"bullwark":', 1, true)
      local max = is_own and own_max or stalled_max
      if count > max and not (job[2] and belongs_to_schedule(job[2])) then
        call('HSET', job_key, 'defa', 'job stalled more than allowable limit')
      end
      rescued[#rescued + 1] = id
      announce_waiting(events, id, 'active')
      call('XADD', events, '*', 'event', 'stalled', 'jobId', id)
    end
  end
end
-- Most suspects have been renewed since: all are looked at, or a lost one among them would wait for
-- its luck.
while #rescued < rescued_max do
  local suspects, locks = call('SPOP', stalled, text(PAGE)), {}
  if #suspects == 0 then break end
  for i = 1, #suspects do locks[i] = prefix .. suspects[i] .. ':lock' end
  local owners = call('MGET', unpack(locks))
  for i = 1, #suspects do
    if not owners[i] then judge(suspects[i]) end
  end
end
if #rescued > 0 then
  -- The contract: next in line, whatever their priority.
  call_many('RPUSH', waiting_list(wait, meta), rescued)
  wake(marker, meta, active)
end
call_many('SADD', stalled, call('LRANGE', active, -active_max, -1))
trim_events(events, meta)
return rescued
