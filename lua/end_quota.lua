-- end_quota: a call is over: free its place, and note what the service said.
--
-- KEYS[1] state        HASH    what is spent, see prelude_quota
-- KEYS[2] leases       ZSET    permit by the ms when it ends by itself
-- KEYS[3] breaker      HASH    of the host that was called
-- ARGV[1] options      msgpack map: permit, lease_ms (that it had), outcome (good, bad, none),
--                      breaker (true: the host has one), limited (true: it was refused for its
--                      quota), closed_ms (optional: how long nobody is to call), told (each name,
--                      limit, left, resets_ms, per_ms; all but the name optional; polled: it was
--                      asked for, and is what is left now), learns (false:
--                      limits stay as they are), default_ms (the length of a window of which
--                      nothing is said), report (true: say what the record should keep)
-- ARGV[2] test_now_ms  empty in production: server time is used
--
-- Returns  {closed_ms (from now; 0: open), breaker: opened | closed | '', fields and values to
--          keep}
-- Moves    nothing
-- Repeat   safe: what is told twice is told once; the breaker hears of a permit only while it holds
--          its lease.

-- A call that was refused without a time: first this long, then twice as long each time.
local STRIKE_MS, STRIKE_MAX = 1000, 60000
-- Two ends of a window nearer than this are the same one: services tell whole seconds.
local SAME_MS = 1500

local options, now = cmsgpack.unpack(ARGV[1]), clock_ms(ARGV[2])
local state_key, leases = KEYS[1], KEYS[2]
local ends, breaker = tonumber(call('ZSCORE', leases, options.permit)), ''
if ends then
  call('ZREM', leases, options.permit)
  if options.breaker then breaker = tell_breaker(KEYS[3], options.permit, options.outcome, now) end
end

local state = read_state(state_key)
-- What is not known to belong to this memory of Redis comes from the record.
if not state.epoch then
  return { options.closed_ms or 0, breaker, {} }
end

local changes = {}
local function keep(field, value)
  state[field], changes[field] = value, value
end

if ends then
  local held = math.max(0, now - (ends - options.lease_ms))
  local before = tonumber(state.hold_ms) or held
  keep('hold_ms', text(before * 0.9 + held * 0.1))
end
local closed_ms = options.closed_ms
if options.limited then
  local strikes = (tonumber(state.strikes) or 0) + 1
  keep('strikes', text(strikes))
  -- "Come again now" was not meant by whoever just refused.
  if not closed_ms or closed_ms == 0 then
    closed_ms = math.min(STRIKE_MS * 2 ^ math.min(strikes - 1, 10), STRIKE_MAX)
  end
elseif options.outcome == 'good' and state.strikes then
  state.strikes = nil
  call('HDEL', state_key, 'strikes')
end
if closed_ms then
  keep('closed', text(math.max(tonumber(state.closed) or 0, now + closed_ms)))
end

-- Calls that the service has perhaps not counted yet.
local under_way = call('ZCOUNT', leases, '(' .. text(now), '+inf')

local function note_left(told)
  local field, per = 'l:' .. told.name, told.per_ms or options.default_ms
  local kept = numbers(state[field])
  local limit, left, since = told.limit or kept[1] or 0, told.left, now
  local resets, trial, tried = nil, 0, 0
  local is_same = kept[4] and kept[4] > now
  if told.resets_ms then
    resets = now + told.resets_ms
    is_same = is_same and resets <= kept[4] + SAME_MS
  else
    resets, trial = now + per, now + TRIAL_MS
    -- Who asked for what is left, or tried after nothing was, knows. Otherwise a new window shows
    -- by having much more left than can be explained.
    is_same = is_same and not told.polled and kept[6] ~= 1
      and left <= kept[2] + under_way + math.max(2, limit / 10)
  end
  if is_same then
    left, since, resets = math.min(left, kept[2]), kept[3], math.max(kept[4], told.resets_ms
      and resets or 0)
  else
    left = math.max(0, left - under_way)
  end
  keep(field, write_told(limit, left, since, resets, trial, tried))
end

local limits = {}
for _, told in ipairs(options.told) do
  if told.left then note_left(told) end
  if told.limit and told.limit > 0 and told.per_ms and options.learns then
    local field = 'm:' .. text(told.per_ms)
    limits[field] = math.min(limits[field] or told.limit, told.limit)
  end
end
for field, limit in pairs(limits) do keep(field, text(limit)) end
for field, value in pairs(changes) do call('HSET', state_key, field, value) end

local report = {}
if options.report or options.limited then
  for field, value in pairs(state) do
    local kind = field:sub(1, 2)
    if kind == 'l:' or kind == 'm:' then
      report[#report + 1] = field
      report[#report + 1] = value
    end
  end
end
return { math.max(0, (tonumber(state.closed) or 0) - now), breaker, report }
