-- prelude_quota_take: what stands against a call, and when it may be tried. Joined after
-- `prelude_quota` and `prelude_quota_turns`.

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

-- Adds those of this period, or until a moment for what SQL counts.
local function add_credits(state_key, state, credits)
  for _, credit in ipairs(credits) do
    local units = credit_of(state, credit.id, credit.period) + credit.units
    state['c:' .. credit.id] = text(credit.period) .. ' ' .. text(units)
    call('HSET', state_key, 'c:' .. credit.id, state['c:' .. credit.id])
  end
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
