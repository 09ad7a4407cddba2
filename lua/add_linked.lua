-- add_linked: put jobs into queues that are tied to others: by a parent, by a deduplication id,
-- by a schedule. In the order given, so a parent comes before its children. What a job without
-- any of these needs, `add` does faster.
--
-- KEYS[1] meta         HASH    settings of the queue of the first job; it routes in a cluster
-- KEYS[2] epoch        STRING  the name of this memory of Redis
-- ARGV[1] test_now_ms  empty in production: server time is used
-- ARGV[2] is_flow      '1': parents that turn out to have nothing to wait for are released after
--                      the last job, because their later children are not there before
-- ARGV[3] epoch        empty: whatever memory it is
-- ARGV[4] not_after_ms empty: at any time
-- ARGV[5…] three per job: data (JSON), opts (JSON), and a msgpack map: queue (`prefix:queue`),
--          id (optional: the queue's counter), name, timestamp_ms (optional: now), delay_ms,
--          priority, lifo, waits_for_children, attempts_started, attempts_made, and optional:
--          parent_key, parent (JSON), schedule_id, dedup (BullMQ's options),
--          children (of a parent that is put back: pending, processed, ignored, failed),
--          unless_released (its parent waits for it only if it still waits for anything)
--
-- Undeclared keys: all others of the queues of the jobs and of their parents.
--
-- Returns  {-1, ''}: nothing was done, it is another memory; {-2, ''}: the same, it is too late;
--          else {code, id, …} per job: 1 added; 2 its id exists, linked to the parent given now;
--          3 deduplicated, and the id that stays; -5 its parent does not exist; -7 it exists and
--          is the child of another parent. For the last two nothing was changed
-- Moves    nothing -> wait | prioritized | delayed | waiting-children;
--          a parent: waiting-children -> wait | prioritized | delayed
-- Repeat   safe for jobs with an id; each call adds another job without one.

local ADDED, DUPLICATE, DEDUPLICATED, PARENT_MISSING, PARENT_KEPT = 1, 2, 3, -5, -7
local FIRST, STRIDE, OTHER_MEMORY, TOO_LATE = 5, 3, -1, -2
local now, is_flow, epoch = clock_ms(ARGV[1]), ARGV[2] ~= '', ARGV[3]
if epoch ~= '' and call('GET', KEYS[2]) ~= epoch then return { OTHER_MEMORY, '' } end
if ARGV[4] ~= '' and now > tonumber(ARGV[4]) then return { TOO_LATE, '' } end
local queues, parents, incomplete = {}, {}, {}

local function queue_of(job)
  local queue = queues[job.queue]
  if not queue then
    local key = keys_of_queue(job.queue)
    queue = { key = key, meta = read_meta(job.queue .. ':meta') }
    queues[job.queue] = queue
  end
  if not queue.meta.events_known then
    call('HSET', queue.key.meta, 'opts.maxLenEvents', queue.meta.events_max)
    queue.meta.events_known = true
  end
  return queue
end

-- Whoever puts a child back may have read about it before it ended, and before it left Redis. Its
-- parent, which may be running by now, could not end while it had such a child to wait for.
local function depend(job, job_key)
  if job.unless_released then
    local parent = keys_of_queue(queue_key_of(job.parent_key))
    if not call('ZSCORE', parent.waiting_children, id_of(job.parent_key)) then return end
  end
  call('SADD', job.parent_key .. ':dependencies', job_key)
end

-- An existing job becomes the child of the parent given now, unless it has another one that lives.
local function link_duplicate(queue, job, job_key)
  local known = call('HGET', job_key, 'parentKey')
  local is_free = not known or known == job.parent_key or call('EXISTS', known) == 0
  if job.parent_key and not is_free then
    incomplete[job.parent_key] = true
    return PARENT_KEPT
  end
  if job.parent_key then
    if call('ZSCORE', queue.key.base .. 'completed', job.id) then
      local returnvalue = call('HGET', job_key, 'returnvalue') or 'null'
      call('HSET', job.parent_key .. ':processed', job_key, returnvalue)
      if not is_flow then release_if_ready(job.parent_key, now) end
    else
      depend(job, job_key)
    end
    call('HSET', job_key, 'parentKey', job.parent_key, 'parent', job.parent)
  end
  call('XADD', queue.key.events, '*', 'event', 'duplicated', 'jobId', job.id)
  return DUPLICATE
end

local function add(job)
  if job.parent_key and call('EXISTS', job.parent_key) == 0 then return PARENT_MISSING, '' end
  local queue, base = queue_of(job), job.queue .. ':'
  local counted = call('INCR', base .. 'id')
  local is_named = job.id ~= nil
  job.id = job.id or text(counted)
  job.timestamp_ms = job.timestamp_ms or now
  local job_key, due_ms = base .. job.id, job.timestamp_ms + job.delay_ms
  if is_named and call('EXISTS', job_key) == 1 then
    return link_duplicate(queue, job, job_key), job.id
  end
  local survivor = job.dedup and deduplicate(queue, job, due_ms)
  if survivor then return DEDUPLICATED, survivor end
  store_job(queue, job, due_ms, now)
  enqueue_job(queue, job, due_ms, now)
  if job.parent_key then depend(job, job_key) end
  return ADDED, job.id
end

local answers = {}
for at = FIRST, #ARGV, STRIDE do
  local job = cmsgpack.unpack(ARGV[at + 2])
  job.data, job.opts = ARGV[at], ARGV[at + 1]
  local code, id = add(job)
  answers[#answers + 1] = code
  answers[#answers + 1] = id
  if job.parent_key then parents[#parents + 1] = job.parent_key end
end
for i = 1, is_flow and #parents or 0 do
  if not incomplete[parents[i]] then release_if_ready(parents[i], now) end
end
for _, queue in pairs(queues) do trim_events(queue.key.events, queue.meta) end
return answers
