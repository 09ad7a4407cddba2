-- prelude_promote: make delayed jobs available. Joined after `prelude_place`.

-- Jobs that left `delayed` become available. An id without a hash is dropped.
local function promote_jobs(prefix, ids, key, meta)
  local batch = new_batch()
  for i = 1, #ids do
    local job_key = prefix .. ids[i]
    local priority = call('HGET', job_key, 'priority')
    if priority or call('EXISTS', job_key) == 1 then
      call('HSET', job_key, 'delay', '0')
      place(batch, ids[i], tonumber(priority) or 0)
      announce_waiting(key.events, ids[i], 'delayed')
    end
  end
  flush(batch, key, meta)
end

-- Jobs that are due become available, the earliest first; at most `max` of them.
local function promote_due(prefix, key, meta, now, max)
  local last = text((now + 1) * SCORES_PER_MS - 1)
  local due = call('ZRANGEBYSCORE', key.delayed, '0', last, 'LIMIT', '0', text(max))
  if #due == 0 then return end
  call_many('ZREM', key.delayed, due)
  promote_jobs(prefix, due, key, meta)
end
