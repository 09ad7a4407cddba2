-- prelude_quota: what is spent of the quota of a key, and what is left. Joined after `prelude`.
--
-- State is one hash: `w:ID` what is spent of a window, `c:ID` "period units" that the record has
-- set aside for it, `l:NAME` what the service said is left, `m:PER_MS` a limit that it said,
-- `closed`, `strikes`, `hold_ms`, and `epoch`, the memory of Redis all this is of.
--
-- A call takes a moment to reach the service: windows end a little later here (`margin`), so that
-- the last calls of one and the first of the next do not meet in one window there.

-- A sliding window is counted in slots; each counts until none of it can be in the window any more.
local SLOTS = 64
local MARGIN_MAX, DAY_MARGIN = 2000, 2000

local function numbers(said)
  local list = {}
  for number in (said or ''):gmatch('[^ ,]+') do list[#list + 1] = tonumber(number) end
  return list
end

local function read_state(state_key)
  local flat, state = call('HGETALL', state_key), {}
  for i = 1, #flat, 2 do state[flat[i]] = flat[i + 1] end
  return state
end

local function margin_of(w)
  return math.min(math.ceil(w.per_ms / 50), MARGIN_MAX)
end

-- How long a window really takes here before it gives its units again.
local function stretch_of(w)
  if w.kind == 'bucket' then return w.per_ms end
  if w.kind == 'fixed' then return w.per_ms + margin_of(w) * (w.durable and 2 or 1) end
  return w.per_ms + margin_of(w) + math.ceil(w.per_ms / SLOTS)
end

-- A limit that the service named for windows of this length, unless the window is pinned.
local function max_of(state, w)
  local told = not w.pinned and w.kind ~= 'bucket' and w.kind ~= 'daily'
    and tonumber(state['m:' .. text(w.per_ms)])
  return told or w.max
end

-- Each reads `{left, max, period, free_at(need), spend(cost)}`; `spend` gives what to store.
local READ = {}

function READ.bucket(w, said, now, max)
  local kept = numbers(said)
  local tokens, at = kept[1] or max, kept[2] or now
  tokens = math.min(max, tokens + math.max(0, now - at) * w.refill / w.per_ms)
  return { left = tokens, max = max,
    free_at = function(need) return now + math.ceil((need - tokens) * w.per_ms / w.refill) end,
    spend = function(cost) return string.format('%.6f %.0f', tokens - cost, now) end }
end

-- "start used period": a durable window is named in the record by the moment when units were first
-- asked for, and opens with its first call, no later than a margin after that.
function READ.fixed(w, said, now, max)
  local kept, lasts = numbers(said), stretch_of(w)
  local start, used = kept[1] or now, kept[2] or 0
  local period = kept[3] or start
  -- A start in the future is of a server with another clock.
  if now >= start + lasts or start > now + lasts or used == 0 and now > period + margin_of(w) then
    start, used, period = now, 0, now
  end
  return { left = max - used, max = max, period = period,
    free_at = function() return start + lasts end,
    spend = function(cost)
      return text(used == 0 and now or start) .. ' ' .. text(used + cost) .. ' ' .. text(period)
    end }
end

function READ.daily(w, said, now, max)
  local day = 1
  while w.days[day + 2] and w.days[day + 1] <= now do day = day + 1 end
  local start, stop, kept = w.days[day], w.days[day + 1], numbers(said)
  local used = kept[1] == start and kept[2] or 0
  -- Around midnight nobody can say on which day the service will count a call.
  local early = now < start + DAY_MARGIN
  local quiet = early or now >= stop - DAY_MARGIN
  return { left = quiet and 0 or max - used, max = max, period = start,
    free_at = function() return (early and start or stop) + DAY_MARGIN end,
    spend = function(cost) return text(start) .. ' ' .. text(used + cost) end }
end

function READ.sliding(w, said, now, max)
  local width = math.ceil(w.per_ms / SLOTS)
  local slot, lasts = math.floor(now / width), stretch_of(w)
  local kept, live, used = numbers(said), {}, 0
  for i = 1, #kept, 2 do
    local at = math.min(kept[i], slot)
    if at * width + lasts > now then
      local last = live[#live]
      if last and last[1] == at then last[2] = last[2] + kept[i + 1]
      else live[#live + 1] = { at, kept[i + 1] } end
      used = used + kept[i + 1]
    end
  end
  return { left = max - used, max = max, period = slot,
    free_at = function(need)
      local left = max - used
      for i = 1, #live do
        left = left + live[i][2]
        if left >= need then return live[i][1] * width + lasts end
      end
      return now + lasts
    end,
    spend = function(cost)
      local last = live[#live]
      if last and last[1] == slot then last[2] = last[2] + cost
      else live[#live + 1] = { slot, cost } end
      local parts = {}
      for i = 1, #live do parts[i] = text(live[i][1]) .. ' ' .. text(live[i][2]) end
      return table.concat(parts, ' ')
    end }
end

local function read_window(state, w, now)
  return READ[w.kind](w, state['w:' .. w.id], now, max_of(state, w))
end
