-- finish: jobs that succeeded leave active for completed.
--
-- KEYS[1] active       LIST
-- KEYS[2] stalled      SET     suspects
-- KEYS[3] wait         LIST    only measured
-- KEYS[4] prioritized  ZSET    only measured
-- KEYS[5] completed    ZSET    job id by finish time in ms
-- KEYS[6] marker       ZSET    wakes one blocked worker
-- KEYS[7] meta         HASH    queue settings
-- KEYS[8] events       STREAM
-- KEYS[9] metrics      HASH
-- KEYS[10] points      LIST    of the metrics, one number per minute
-- KEYS[11] delayed     ZSET    only measured
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] options      msgpack map: keeps (list of {count, age_s, limit}, each optional; count 0
--                      removes the job at once), metrics_points_max (optional: no metrics)
-- ARGV[3] test_now_ms  empty in production: server time is used
-- ARGV[4…] four per job: id, token, returnvalue (JSON), position in keeps (from 1)
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, their parts and locks, `de:…` and `dn:…`,
--                  and the keys of parents, in whatever queue.
--
-- Returns  {position, code, …} of jobs left as they are: -1 no hash, -3 not active, -6 the lock
--          is another attempt's
-- Moves    active -> completed | removed
-- Repeat   safe: a job that left active is not touched again.

local key = { active = KEYS[1], wait = KEYS[3], prioritized = KEYS[4], marker = KEYS[6],
  events = KEYS[8], delayed = KEYS[11] }
local stalled, completed, metrics, points = KEYS[2], KEYS[5], KEYS[9], KEYS[10]
local prefix, options, now = ARGV[1], cmsgpack.unpack(ARGV[2]), clock_ms(ARGV[3])
local now_text, events, meta = text(now), key.events, read_meta(KEYS[7])
local FIRST, STRIDE = 4, 4

local ids, tokens = {}, {}
for at = FIRST, #ARGV, STRIDE do
  ids[#ids + 1] = ARGV[at]
  tokens[#tokens + 1] = ARGV[at + 1]
end
local codes, done = take_active(prefix, key.active, stalled, ids, tokens)
if done == 0 then return refusals(codes) end
trim_events(events, meta) -- before anything is added: what is new must be heard

local scores, removed = {}, {}
for i = 1, #ids do
  if codes[i] == DONE then
    local at, id = FIRST + (i - 1) * STRIDE, ids[i]
    local job_key, returnvalue = prefix .. id, ARGV[at + 2]
    local job = call('HMGET', job_key, 'atm', 'deid', 'parentKey')
    if job[2] then
      release_dedup(prefix, job[2], id)
      attempt_to(add_successor, prefix, job[2], now)
    end
    if job[3] then attempt_to(tell_parent_completed, job_key, job[3], returnvalue, now) end
    if options.keeps[tonumber(ARGV[at + 3])].count == 0 then
      removed[#removed + 1] = job_key
    else
      scores[#scores + 1] = now_text
      scores[#scores + 1] = id
      call('HSET', job_key, 'returnvalue', returnvalue, 'finishedOn', now_text,
        'atm', text((tonumber(job[1]) or 0) + 1))
    end
    call('XADD', events, '*', 'event', 'completed', 'jobId', id, 'returnvalue', returnvalue,
      'prev', 'active')
  end
end
call_many('ZADD', completed, scores)
delete_jobs(removed)
for i = 1, #options.keeps do keep_within(completed, prefix, options.keeps[i], now) end
if options.metrics_points_max then
  count_metrics(metrics, points, done, now, options.metrics_points_max)
end
after_ending(key, meta)
return refusals(codes)
