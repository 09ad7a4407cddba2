-- prelude_quota_line: who goes before a call, and where it stands in line if it must wait. Joined
-- after `prelude_quota_turns` and `prelude_quota_take`.

-- Between two jobs that come back, at most; and how far ahead moments are given away.
local SPACING_MAX, HORIZON_MS = 1000, 3600000

-- Units of those who were told to come back now, and go before whoever comes anew.
local function units_before(keys, options, can_not_come, told, now)
  local is_expected = told and told > now - GRACE_MS
  if is_expected or options.interactive then return 0 end
  return awaited_units(keys, can_not_come, now)
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
