-- prelude_dedup: what happens to a deduplication id when its owner ends. Joined after
-- `prelude_parent`.

-- A finished owner gives its id free, unless that one expires by itself.
local function release_dedup(prefix, dedup_id, id)
  local key = prefix .. 'de:' .. dedup_id
  local ttl_ms = call('PTTL', key)
  if ttl_ms == 0 or (ttl_ms == -1 and call('GET', key) == id) then call('DEL', key) end
end

-- A removed owner gives its id free, and what was to follow it is forgotten.
local function forget_dedup(prefix, dedup_id, id)
  if call('GET', prefix .. 'de:' .. dedup_id) == id then
    call('DEL', prefix .. 'de:' .. dedup_id, prefix .. 'dn:' .. dedup_id)
  end
end

local function own_dedup(prefix, dedup, id)
  local key, ttl_ms = prefix .. 'de:' .. dedup.id, tonumber(dedup.ttl)
  if ttl_ms and ttl_ms > 0 and not dedup.keepLastIfActive then
    call('SET', key, id, 'PX', text(ttl_ms))
  else
    call('SET', key, id)
  end
end

-- Adds the job that was remembered while the owner ran (`keepLastIfActive`). Its hash goes last:
-- whatever fails before leaves it to be added again.
local function add_successor(prefix, dedup_id, now)
  local next_key = prefix .. 'dn:' .. dedup_id
  if call('EXISTS', next_key) == 0 then return end
  local kept = call('HMGET', next_key, 'name', 'data', 'opts', 'jid', 'pk', 'pd', 'pdk', 'rjk')
  local counted, options = call('INCR', prefix .. 'id'), cjson.decode(kept[3])
  local key, id = keys_of_queue(prefix:sub(1, -2)), kept[4] or text(counted)
  local job_key, delay_ms = prefix .. id, tonumber(options.delay) or 0
  if call('EXISTS', job_key) == 1 then -- somebody has added a job of that name meanwhile
    call('XADD', key.events, '*', 'event', 'duplicated', 'jobId', id)
    call('DEL', next_key)
    return
  end
  local priority = tonumber(options.priority) or 0
  local fields = { 'name', kept[1], 'data', kept[2], 'opts', kept[3], 'deid', dedup_id,
    'timestamp', text(now), 'delay', text(delay_ms), 'priority', text(priority) }
  for position, name in pairs({ [5] = 'parentKey', [6] = 'parent', [8] = 'rjk' }) do
    if kept[position] then
      fields[#fields + 1] = name
      fields[#fields + 1] = kept[position]
    end
  end
  if options.de then own_dedup(prefix, options.de, id) end
  call_many('HSET', job_key, fields)
  call('XADD', key.events, '*', 'event', 'added', 'jobId', id, 'name', kept[1])
  local batch = new_batch()
  if delay_ms > 0 then
    place_delayed(batch, key.delayed, id, now + delay_ms)
    call('XADD', key.events, '*', 'event', 'delayed', 'jobId', id, 'delay', text(now + delay_ms))
  else
    place(batch, id, priority, options.lifo)
    announce_waiting(key.events, id)
  end
  flush(batch, key, read_meta(key.meta))
  if kept[7] then call('SADD', kept[7], job_key) end
  call('DEL', next_key)
end
