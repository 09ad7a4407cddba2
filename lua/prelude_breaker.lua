-- prelude_breaker: whether a host is well. Joined after `prelude`.
--
-- One hash per host: `fails` in a row; `slot`, `good`, `bad`, `good_before`, `bad_before`: calls of
-- this slot and of the one before; while it is open `until`, `opens` in a row, `probe` (the permit
-- of the one call that tries) and `probe_until`.

local FAILS_MAX = 5
local SLOT_MS, CALLS_MIN, BAD_SHARE = 10000, 20, 0.5
-- Never longer than this: a host that is back is found out soon, by one call.
local OPEN_MS, OPEN_MAX = 500, 5000
local BREAKER_TTL = 600000

local function open_breaker(key, opens, now)
  call('DEL', key)
  call('HSET', key, 'opens', text(opens), 'until',
    text(now + math.min(OPEN_MS * 2 ^ (opens - 1), OPEN_MAX)))
end

-- The shares of calls that failed lately, this one included.
local function count_call(key, is_bad, now)
  local kept = call('HMGET', key, 'slot', 'good', 'bad', 'good_before', 'bad_before')
  local slot = math.floor(now / SLOT_MS)
  local good, bad = tonumber(kept[2]) or 0, tonumber(kept[3]) or 0
  local good_before, bad_before = tonumber(kept[4]) or 0, tonumber(kept[5]) or 0
  local was = tonumber(kept[1]) or slot
  if was ~= slot then
    if was == slot - 1 then good_before, bad_before = good, bad
    else good_before, bad_before = 0, 0 end
    good, bad = 0, 0
  end
  if is_bad then bad = bad + 1 else good = good + 1 end
  call('HSET', key, 'slot', text(slot), 'good', text(good), 'bad', text(bad),
    'good_before', text(good_before), 'bad_before', text(bad_before))
  return bad + bad_before, good + good_before + bad + bad_before
end

-- How a call went: `good`, `bad`, or `none` when nobody knows. Returns `opened`, `closed` or ''.
local function tell_breaker(key, permit, outcome, now)
  local kept = call('HMGET', key, 'until', 'opens', 'probe', 'fails')
  local change = ''
  if kept[1] then
    -- What was under way when it opened says nothing of now.
    if kept[3] ~= permit then return '' end
    if outcome == 'good' then
      call('DEL', key)
      return 'closed'
    end
    if outcome == 'none' then
      call('HDEL', key, 'probe', 'probe_until')
    else
      open_breaker(key, (tonumber(kept[2]) or 0) + 1, now)
      change = 'opened'
    end
  elseif outcome ~= 'none' then
    local is_bad = outcome == 'bad'
    local bad, all = count_call(key, is_bad, now)
    local fails = is_bad and (tonumber(kept[4]) or 0) + 1 or 0
    call('HSET', key, 'fails', text(fails))
    if is_bad and (fails >= FAILS_MAX or (all >= CALLS_MIN and bad >= all * BAD_SHARE)) then
      open_breaker(key, 1, now)
      change = 'opened'
    end
  end
  call('PEXPIRE', key, text(BREAKER_TTL))
  return change
end
