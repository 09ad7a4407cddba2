-- reprocess_many: the oldest jobs of a state wait again, whatever it was.
--
-- KEYS[1] from         ZSET    completed, failed or delayed
-- KEYS[2] wait         LIST    job ids without priority, next one at the tail
-- KEYS[3] prioritized  ZSET    job id by priority and arrival
-- KEYS[4] pc           STRING  counts arrivals
-- KEYS[5] marker       ZSET    wakes one blocked worker
-- KEYS[6] active       LIST    only measured, for the global concurrency
-- KEYS[7] meta         HASH    queue settings
-- KEYS[8] events       STREAM
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] state        `completed`, `failed` or `delayed`, as KEYS[1]
-- ARGV[3] score_max    jobs with a higher score stay; `+inf`: none
-- ARGV[4] max          jobs moved by this call
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, and the keys of parents, in whatever
--                  queue.
--
-- Returns  how many left the state; fewer than `max`: there are no more
-- Moves    completed | failed | delayed -> wait | prioritized. An id without a hash is dropped.
-- Repeat   safe: what moved is not there any more.

local from, events, meta = KEYS[1], KEYS[8], read_meta(KEYS[7])
local key = { wait = KEYS[2], prioritized = KEYS[3], delayed = from, pc = KEYS[4],
  marker = KEYS[5], active = KEYS[6], events = events }
local prefix, state = ARGV[1], ARGV[2]

local ids = call('ZRANGEBYSCORE', from, '-inf', ARGV[3], 'LIMIT', '0', ARGV[4])
if #ids == 0 then return 0 end
call_many('ZREM', from, ids)
if state == 'delayed' then
  promote_jobs(prefix, ids, key, meta)
else
  local batch = new_batch()
  for i = 1, #ids do
    local job_key = prefix .. ids[i]
    local priority = call('HGET', job_key, 'priority')
    if priority or call('EXISTS', job_key) == 1 then
      forget_end(job_key, state)
      place(batch, ids[i], tonumber(priority) or 0)
      announce_waiting(events, ids[i], state)
    end
  end
  flush(batch, key, meta)
end
trim_events(events, meta)
return #ids
