-- prelude_quota_take: what stands against a call, and when it may be tried. Joined after
-- `prelude_quota` and
-- `prelude_quota_turns`.

-- Between two jobs that come back, at most; and how far ahead moments are given away.
local SPACING_MAX, HORIZON_MS = 1000, 3600000
local HOLD_MS, PROBE_WAIT_MS = 500, 500
-- Of a call that tries a host that failed, nothing may ever be heard: a service may swallow it, and
-- its worker may die. Then another one tries.
local PROBE_MS = 5000

-- What was counted before this memory of Redis began, as far as the record knows. Windows that it
-- does not count are taken for full if anything may have been spent of them.
local function seed_state(state_key, state, windows, seed, epoch, now)
  call('DEL', state_key)
  for field in pairs(state) do state[field] = nil end
  state.epoch = epoch
  for field, value in pairs(seed.fields) do state[field] = value end
  if seed.closed_ms > 0 then state.closed = text(now + seed.closed_ms) end
  for _, w in ipairs(windows) do
    local spent, field = seed.spent[w.id], 'w:' .. w.id
    if w.durable then
      if spent then state[field] = spent end
    elseif seed.idle_ms < w.per_ms + MARGIN_MAX then
      local max = text(math.max(w.max, max_of(state, w)))
      if w.kind == 'bucket' then state[field] = '0 ' .. text(now)
      elseif w.kind == 'fixed' then state[field] = text(now) .. ' ' .. max
      else
        state[field] = text(math.floor(now / math.ceil(w.per_ms / SLOTS))) .. ' ' .. max
      end
    end
  end
  for field, value in pairs(state) do call('HSET', state_key, field, value) end
end

-- Units that the record has set aside for this period.
local function credit_of(state, id, period)
  local kept = numbers(state['c:' .. id])
  return kept[1] == period and kept[2] or 0
end

-- Notes what stands against it; the latest moment counts, and what holds until then.
local function new_hindrance(now)
  return { at = now, now = now }
end

local function hinder(found, at, why, which)
  at = math.max(at, found.now + 1)
  if at > found.at then found.at, found.why, found.which = at, why, which end
end

-- The breaker of the host: until when it is open, and whether this call would be the probe.
local function look_at_breaker(breaker_key, now, found)
  local kept = call('HMGET', breaker_key, 'until', 'probe_until')
  local open_until, probing_until = tonumber(kept[1]), tonumber(kept[2]) or 0
  if not open_until then return false end
  if open_until > now then hinder(found, open_until, 'breaker', '')
  elseif probing_until > now then hinder(found, now + PROBE_WAIT_MS, 'breaker', '') end
  return true
end

-- Calls at a time: leases of those who died end by themselves.
local function look_at_leases(leases_key, state, concurrency, now, found)
  call('ZREMRANGEBYSCORE', leases_key, '-inf', text(now))
  if concurrency and call('ZCARD', leases_key) >= concurrency then
    hinder(found, now + (tonumber(state.hold_ms) or HOLD_MS), 'concurrency', '')
  end
end

-- What the service itself said is left. Where it did not say until when, one call tries after a
-- while: a window that moves on, or one that began before it was seen, has more by then.
local function look_at_told(state, cost, reserve, now, found)
  local told = {}
  for field, value in pairs(state) do
    local kept = field:sub(1, 2) == 'l:' and numbers(value)
    if kept and kept[4] > now then
      local t, trial = { field = field, kept = kept }, kept[5] or 0
      told[#told + 1] = t
      local held = math.min(math.ceil((kept[1] or 0) * reserve), math.max(0, kept[1] - cost))
      if kept[2] < cost + held then
        t.is_trial = trial > 0 and trial <= now
        local at = trial > 0 and math.min(trial, kept[4]) or kept[4]
        if not t.is_trial then hinder(found, at, 'told', field:sub(3)) end
      end
    end
  end
  return told
end

-- How many units of those who are awaited go before a new call in this window: never so many that a
-- window of which nothing is spent refuses it. One that has room for nothing else waits for them as
-- long as everybody comes.
local function ahead_in(keys, window, own, awaited, now)
  if awaited == 0 then return 0 end
  local room = math.max(0, window.max - own)
  if room > 0 then return math.min(awaited, room) end
  local late = call('ZCOUNT', keys.tickets, '-inf', text(now - GRACE_MS))
  return late == 0 and 1 or 0
end

-- Between two moments of a line: as many at a time as the shortest window allows, and those that
-- are used up. Long windows with enough left slow nobody down.
local function spacing_of(state, windows, options)
  local spacing, shortest, least = 10, nil, 0
  for _, w in ipairs(windows) do
    local rate = w.kind == 'bucket' and w.refill or max_of(state, w)
    if w.kind ~= 'daily' then
      local own = stretch_of(w) / rate * options.cost
      if w.is_used_up then spacing = math.max(spacing, own) end
      if not shortest or w.per_ms < shortest then shortest, least = w.per_ms, own end
    end
  end
  spacing = math.max(spacing, least)
  if options.concurrency then
    spacing = math.max(spacing, (tonumber(state.hold_ms) or HOLD_MS) / options.concurrency)
  end
  return math.min(spacing, SPACING_MAX)
end

-- When the job may come back: behind the line that stands at the moment that was found, else at
-- that moment. A line that begins later, such as one that waits for midnight, is no line of those
-- who wait for a second; interactive work has lines of its own.
local function place_in_line(keys, state, windows, options, can_not_come, found, now)
  local spacing = spacing_of(state, windows, options)
  local kind = options.interactive and 'interactive' or 'batch'
  call('ZREMRANGEBYSCORE', keys.lines, '-inf', text(now))
  trim_lines(keys, can_not_come, now)
  local at, joined = found.at, nil
  for _, line in ipairs(read_lines(keys.lines, kind)) do
    if line.start < at + spacing and at < line.last + spacing then
      at, joined = line.last + spacing, line.name
    end
  end
  if at > found.at + HORIZON_MS then
    at = found.at + HORIZON_MS * (1 + options.random)
  else
    call('ZADD', keys.lines, text(at), joined or kind .. ' ' .. text(at))
  end
  local ticket = options.ticket
  if ticket and (call('ZCARD', keys.tickets) < TICKETS_MAX
      or call('ZSCORE', keys.tickets, ticket)) then
    write_ticket(keys, ticket, at, options.cost)
  end
  return at
end
