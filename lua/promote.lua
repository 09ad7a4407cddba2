-- promote: make delayed jobs available now, before they are due.
--
-- KEYS[1] delayed      ZSET    job id by due time
-- KEYS[2] wait         LIST    job ids without priority, next one at the tail
-- KEYS[3] prioritized  ZSET    job id by priority and arrival
-- KEYS[4] pc           STRING  counts arrivals
-- KEYS[5] marker       ZSET    wakes one blocked worker
-- KEYS[6] active       LIST    only measured, for the global concurrency
-- KEYS[7] meta         HASH    queue settings
-- KEYS[8] events       STREAM
-- KEYS[9] waiting_children ZSET
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2…] two per job: id, and how often it was started if that matters, else ''
--
-- Undeclared keys: the job hashes, `job_prefix .. id`.
--
-- Returns  the positions (from 1) of jobs that are not delayed, or were started since
-- Moves    delayed -> wait | prioritized.
--          A parent that still waits is not delayed after that, if its starts were named.
-- Repeat   safe: a job already moved is not delayed any more.

local delayed = KEYS[1]
local key = { wait = KEYS[2], prioritized = KEYS[3], delayed = delayed, pc = KEYS[4],
  marker = KEYS[5], active = KEYS[6], events = KEYS[8] }
local prefix, meta = ARGV[1], read_meta(KEYS[7])

local function was_started_since(id, starts)
  return starts ~= '' and (tonumber(call('HGET', prefix .. id, 'ats')) or 0) ~= tonumber(starts)
end

local not_delayed, moved = {}, {}
for at = 2, #ARGV, 2 do
  local id, starts = ARGV[at], ARGV[at + 1]
  if not was_started_since(id, starts) and call('ZREM', delayed, id) == 1 then
    moved[#moved + 1] = id
  else
    not_delayed[#not_delayed + 1] = at / 2
    if starts ~= '' and call('ZSCORE', KEYS[9], id) then
      call('HSET', prefix .. id, 'delay', '0')
    end
  end
end
if #moved > 0 then promote_jobs(prefix, moved, key, meta) end
return not_delayed
