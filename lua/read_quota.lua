-- read_quota: what is left of the quota of a key, for people.
--
-- KEYS[1] state        HASH    what is spent, see prelude_quota
-- KEYS[2] leases       ZSET    permit by the ms when it ends by itself
-- KEYS[3] epoch        STRING  the name of this memory of Redis
-- ARGV[1] options      msgpack map: windows, as for take_quota; breaker_prefix
-- ARGV[2] test_now_ms  empty in production: server time is used
--
-- Undeclared keys: the breaker of the host, `breaker_prefix .. host`.
--
-- Returns  {now_ms, closed until ms or 0, calls under way, each window {id, max, left, whole again
--          at ms}, each thing told {name, limit, left, until ms}, host or '', its breaker is open
--          until ms or 0}; nil: nothing is known
-- Moves    nothing
-- Repeat   safe: only reads.

local options, now = cmsgpack.unpack(ARGV[1]), clock_ms(ARGV[2])
local state = read_state(KEYS[1])
if not state.epoch or state.epoch ~= (call('GET', KEYS[3]) or '') then return false end

local windows, told = {}, {}
for i, w in ipairs(options.windows) do
  local window = read_window(state, w, now)
  local left = math.max(0, math.floor(window.left))
  local whole = left >= window.max and now or window.free_at(window.max)
  windows[i] = { w.id, math.floor(window.max), left, math.ceil(whole) }
end
for field, value in pairs(state) do
  local kept = field:sub(1, 2) == 'l:' and numbers(value)
  if kept and kept[4] > now then
    told[#told + 1] = { field:sub(3), kept[1], math.max(0, kept[2]), kept[4] }
  end
end
local closed = tonumber(state.closed) or 0
local under_way = call('ZCOUNT', KEYS[2], text(now), '+inf')
local host = state.host or ''
local open = host ~= '' and tonumber(call('HGET', options.breaker_prefix .. host, 'until')) or 0
return { now, closed > now and closed or 0, under_way, windows, told, host, open }
