-- prelude_store: write a new job with its links, and put it where it waits. Joined after
-- `prelude_parent`.
--
-- A job is a table: id, name, data, opts, timestamp_ms, delay_ms, priority, lifo,
-- waits_for_children, attempts_started, attempts_made, and optional parent_key, parent (JSON),
-- schedule_id, dedup, children, owner. A queue is a table of its keys and its settings.

local function is_due_later(job, due_ms, now)
  return job.delay_ms > 0 and due_ms > now
end

-- What became of the children of a parent that is put back: the contract's four keys.
local function store_children(job_key, children, now)
  local function flat(pairs_of)
    local list = {}
    for i = 1, #pairs_of do
      list[#list + 1] = pairs_of[i][1]
      list[#list + 1] = pairs_of[i][2]
    end
    return list
  end
  call_many('SADD', job_key .. ':dependencies', children.pending)
  call_many('HSET', job_key .. ':processed', flat(children.processed))
  call_many('HSET', job_key .. ':failed', flat(children.ignored))
  for i = 1, #children.failed do
    call('ZADD', job_key .. ':unsuccessful', text(now), children.failed[i])
    call('HSET', job_key, 'defa', 'child ' .. children.failed[i] .. ' failed')
  end
end

local function store_job(queue, job, due_ms, now)
  -- A parent's own delay counts from its release.
  local is_delayed = job.waits_for_children or is_due_later(job, due_ms, now)
  local fields = { 'name', job.name, 'data', job.data, 'opts', job.opts,
    'timestamp', text(job.timestamp_ms), 'delay', is_delayed and text(job.delay_ms) or '0',
    'priority', text(job.priority) }
  local function keep(name, value)
    if not value or value == 0 then return end
    fields[#fields + 1] = name
    fields[#fields + 1] = type(value) == 'number' and text(value) or value
  end
  keep('parentKey', job.parent_key)
  keep('parent', job.parent_key and job.parent)
  keep('rjk', job.schedule_id)
  keep('deid', job.dedup and job.dedup.id)
  if job.attempts_started then -- 0, too: only a job of the record says so
    fields[#fields + 1] = 'ats'
    fields[#fields + 1] = text(job.attempts_started)
  end
  -- Put back: without it, it would look as if it had been retried by hand.
  keep('processedOn', (job.attempts_started or 0) > 0 and now)
  keep('atm', job.attempts_made)
  keep('gid', queue.meta.fair and job.owner)
  call_many('HSET', queue.key.base .. job.id, fields)
  if job.children then store_children(queue.key.base .. job.id, job.children, now) end
  call('XADD', queue.key.events, '*', 'event', 'added', 'jobId', job.id, 'name', job.name)
end

local function enqueue_job(queue, job, due_ms, now)
  local key, batch = queue.key, new_batch()
  if job.waits_for_children then
    call('ZADD', key.waiting_children, text(job.timestamp_ms), job.id)
    call('XADD', key.events, '*', 'event', 'waiting-children', 'jobId', job.id)
    return
  end
  if is_due_later(job, due_ms, now) then
    place_delayed(batch, key.delayed, job.id, due_ms)
    call('XADD', key.events, '*', 'event', 'delayed', 'jobId', job.id, 'delay', text(due_ms))
  else
    place(batch, job.id, job.priority, job.lifo)
    announce_waiting(key.events, job.id)
  end
  flush(batch, key, queue.meta)
end
