-- prelude_schedule: what the iterations of a schedule have in common. Joined after
-- `prelude_dedup`.
--
-- `options` comes from the caller: how the job of the next iteration is made. Its `opts` lacks
-- the end, what only the server's clock knows.

local function iteration_id(schedule_id, due)
  return 'repeat:' .. schedule_id .. ':' .. due
end

-- When an interval is due next, and its phase: what remains when the due time is divided by it.
-- `previous_ms` is none for a new schedule. Iterations that were missed are left out.
local function next_due_ms(previous_ms, every_ms, offset_ms, start_ms, now)
  local function after_now()
    local due_ms = math.floor(now / every_ms) * every_ms + offset_ms
    return due_ms <= now and due_ms + every_ms or due_ms
  end
  local due_ms
  if previous_ms then
    due_ms = previous_ms + every_ms
    if due_ms < now then due_ms = after_now() end
  elseif start_ms then
    due_ms = math.max(start_ms, now)
  else
    due_ms = offset_ms > 0 and after_now() or now
  end
  return due_ms, offset_ms ~= 0 and offset_ms or due_ms % every_ms
end

-- Makes the job of an iteration. One that is due already is waiting at once.
local function add_iteration(key, prefix, options, id, name, data, due_ms, now)
  local delay_ms = math.max(due_ms - now, 0)
  local delay = text(delay_ms)
  local opts = options.opts .. ',"timestamp":' .. text(now) .. ',"delay":' .. delay
    .. ',"jobId":' .. cjson.encode(id) .. '}'
  call('INCR', key.id)
  local fields = { 'name', name, 'data', data, 'opts', opts, 'timestamp', text(now),
    'delay', delay, 'priority', text(options.priority), 'rjk', options.id }
  if options.dedup_id then
    fields[#fields + 1] = 'deid'
    fields[#fields + 1] = options.dedup_id
  end
  call_many('HSET', prefix .. id, fields)
  call('XADD', key.events, '*', 'event', 'added', 'jobId', id, 'name', name)
  local meta, batch = read_meta(key.meta), new_batch()
  if not meta.events_known then call('HSET', key.meta, 'opts.maxLenEvents', meta.events_max) end
  if delay_ms > 0 then
    place_delayed(batch, key.delayed, id, due_ms)
    call('XADD', key.events, '*', 'event', 'delayed', 'jobId', id, 'delay', text(due_ms))
  else
    place(batch, id, options.priority, options.lifo)
    announce_waiting(key.events, id)
  end
  flush(batch, key, meta)
  trim_events(key.events, meta)
end

-- Takes an iteration back that has not started. False: it has, or there is none. While a queue is
-- paused BullMQ 6 looks for it in a list that it does not use any more, leaves it where it is and
-- makes another one beside it; that is not repeated here.
local function take_back(key, prefix, id)
  local job_key = prefix .. id
  if call('EXISTS', job_key) == 0 then return false end
  local is_waiting = call('ZREM', key.delayed, id) == 1 or call('ZREM', key.prioritized, id) == 1
    or call('LREM', waiting_list(key.wait, read_meta(key.meta)), 1, id) > 0
  if not is_waiting then return false end
  local job = call('HMGET', job_key, 'parentKey', 'deid')
  if job[1] then detach_from_parent(job_key, job[1], true) end
  if job[2] then forget_dedup(prefix, job[2], id) end
  delete_jobs({ job_key })
  return true
end

-- The keys that scripts of schedules take, in the order in which they take them.
local function schedule_keys()
  return { schedules = KEYS[1], delayed = KEYS[2], wait = KEYS[3], prioritized = KEYS[4],
    pc = KEYS[5], marker = KEYS[6], active = KEYS[7], meta = KEYS[8], events = KEYS[9],
    id = KEYS[10] }
end
