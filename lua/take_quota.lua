-- take_quota: take units of a key's quota for one call, if it fits into every window.
--
-- KEYS[1] state        HASH    what is spent, see prelude_quota
-- KEYS[2] leases       ZSET    permit by the ms when it ends by itself
-- KEYS[3] lines        ZSET    of those who come back, by the last moment that was given away
-- KEYS[4] tickets      ZSET    job and queue by the moment when it is to come back
-- KEYS[5] costs        HASH    of tickets that cost more than one
-- KEYS[6] breaker      HASH    of the host that is called; not looked at without `breaker`
-- KEYS[7] epoch        STRING  the name of this memory of Redis
-- ARGV[1] options      msgpack map: permit, cost, lease_ms, ttl_ms, windows (each id, kind, max,
--                      per_ms, refill, days, pinned, durable), concurrency, reserve (0..0.9: kept
--                      for others), interactive, ticket, jobs (start of the keys of queues),
--                      breaker (true: the host has one), random (0..1), joined (also counted by
--                      SQL), seed (what the record knows), credits (each id, period, units: set
--                      aside in the record for this call), refused (id -> ms: the record has no
--                      more), host (of the breaker), epoch and server
-- ARGV[2] test_now_ms  empty in production: server time is used
--
-- Undeclared keys: jobs of tickets and settings of their queues, `jobs:QUEUE:ID` and
-- `jobs:QUEUE:meta`.
--
-- Returns  {GRANTED, now_ms} | {DENIED, now_ms, at_ms, why, which} | {COLD, now_ms}: nothing is
--          known of the key, come with a seed | {CREDIT, now_ms, id, period, max}: the record is to
--          set units aside | {OTHER_MEMORY, now_ms} | {TOO_EXPENSIVE, now_ms, id, max}: the
--          service named a limit below the cost
-- Moves    nothing
-- Repeat   safe without credits: a permit that holds a lease was granted already and is not
--          charged again. Credits would be added twice.

local GRANTED, DENIED, COLD, CREDIT, OTHER_MEMORY, TOO_EXPENSIVE = 0, 1, 2, 3, 4, 5
local keys = { state = KEYS[1], leases = KEYS[2], lines = KEYS[3], tickets = KEYS[4],
  costs = KEYS[5] }
local options, now = cmsgpack.unpack(ARGV[1]), clock_ms(ARGV[2])
local cost, windows = options.cost, options.windows

if options.epoch and not is_memory(KEYS[7], options.epoch, options.server) then
  return { OTHER_MEMORY, now }
end
if call('ZSCORE', keys.leases, options.permit) then return { GRANTED, now } end
local epoch, state = call('GET', KEYS[7]) or '', read_state(keys.state)
if state.epoch ~= epoch then
  if not options.seed then return { COLD, now } end
  seed_state(keys.state, state, windows, options.seed, epoch, now)
end

add_credits(keys.state, state, options.credits)

drop_late_tickets(keys, now)
local can_not_come = new_look(options.jobs)
local told = options.ticket and tonumber(call('ZSCORE', keys.tickets, options.ticket))
local awaited = units_before(keys, options, can_not_come, told, now)

local found, reserve = new_hindrance(now), options.interactive and 0 or options.reserve
local closed = tonumber(state.closed) or 0
if closed > now then hinder(found, closed, 'closed', '') end
local is_probe = options.breaker and look_at_breaker(KEYS[6], now, found)
look_at_leases(keys.leases, state, options.concurrency, now, found)
local said = look_at_told(state, cost, reserve, now, found)
local small = too_small(said, cost)
if small then return { TOO_EXPENSIVE, now, small.field:sub(3), text(small.kept[1]) } end
local read = {}
for i, w in ipairs(windows) do
  local window = read_window(state, w, now)
  read[i] = window
  if window.max < cost then return { TOO_EXPENSIVE, now, w.id, text(window.max) } end
  -- What is kept can not be more than there ever is beside this call; who is awaited goes first.
  local held = math.min(math.ceil(window.max * reserve), math.max(0, window.max - cost))
  local need = cost + held + ahead_in(keys, window, cost + held, awaited, now)
  if window.left < need then
    w.is_used_up = true
    hinder(found, window.free_at(math.min(need, window.max)), 'window', w.id)
  elseif options.refused[w.id] and credit_of(state, w.id, window.period) < cost then
    w.is_used_up = true
    local some = math.min(window.max, math.max(window.left, 0) + 1)
    hinder(found, math.max(window.free_at(some), now + 1), 'window', w.id)
  end
end
if options.refused.sql then hinder(found, now + options.refused.sql, 'window', 'sql') end
if found.at > now then
  local at = place_in_line(keys, state, windows, options, can_not_come, found, now)
  for _, name in ipairs({ 'state', 'lines', 'tickets', 'costs' }) do
    call('PEXPIRE', keys[name], text(math.max(options.ttl_ms, at - now + TICKET_MS)))
  end
  return { DENIED, now, math.ceil(at), found.why, found.which }
end

local pay = {}
if options.breaker and state.host ~= options.host then pay.host = options.host end
for i, w in ipairs(windows) do
  if w.durable then
    local period, units = read[i].period, credit_of(state, w.id, read[i].period)
    if units < cost then
      -- So that the period is the same one when the units come.
      call('HSET', keys.state, 'w:' .. w.id, read[i].spend(0))
      call('PEXPIRE', keys.state, text(options.ttl_ms))
      return { CREDIT, now, w.id, text(period), text(read[i].max) }
    end
    pay['c:' .. w.id] = text(period) .. ' ' .. text(units - cost)
  end
end
if options.joined then
  local kept = numbers(state['c:sql'])
  if #kept == 0 or kept[1] <= now or kept[2] < cost then return { CREDIT, now, 'sql', '0', '0' } end
  pay['c:sql'] = text(kept[1]) .. ' ' .. text(kept[2] - cost)
end

for i, w in ipairs(windows) do pay['w:' .. w.id] = read[i].spend(cost) end
for _, t in ipairs(said) do
  pay[t.field] = pay_told(t, cost, now)
end
for field, value in pairs(pay) do call('HSET', keys.state, field, value) end
call('ZADD', keys.leases, text(now + options.lease_ms), options.permit)
if told then drop_tickets(keys, { options.ticket }) end
if is_probe then
  call('HSET', KEYS[6], 'probe', options.permit, 'probe_until',
    text(now + math.min(options.lease_ms, PROBE_MS)))
end
call('PEXPIRE', keys.state, text(options.ttl_ms))
call('PEXPIRE', keys.leases, text(options.ttl_ms))
return { GRANTED, now }
