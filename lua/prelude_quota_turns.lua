-- prelude_quota_turns: who waits for quota, and when each of them comes. Joined after `prelude`.
--
-- A job that is told to come back has a ticket, "id queue": its moment in `tickets`, its cost in
-- `costs` where that is not 1. Moments are given away line by line; `lines` has each as
-- "kind start" by the last moment that was given away, `kind` being `batch` or `interactive`.
--
-- A job that is cancelled, deleted or paused tells nobody here: whoever counts on a ticket looks
-- whether its job can come.

-- How long nobody takes the place of a job that was told to come back now, and how long it is
-- known that it was.
local GRACE_MS, TICKET_MS = 1500, 60000
-- Jobs that are told when to come back, at most; further ones come back at any time after these.
local TICKETS_MAX = 10000
-- Turns of this moment that are looked at, and tickets that are read at a time from the end.
local DUE_MAX, PAGE = 1000, 200

local function drop_tickets(keys, list)
  call_many('ZREM', keys.tickets, list)
  call_many('HDEL', keys.costs, list)
end

local function drop_late_tickets(keys, now)
  drop_tickets(keys, call('ZRANGEBYSCORE', keys.tickets, '-inf', text(now - TICKET_MS), 'LIMIT',
    0, DUE_MAX))
end

local function write_ticket(keys, ticket, at, cost)
  call('ZADD', keys.tickets, text(at), ticket)
  if cost == 1 then call('HDEL', keys.costs, ticket)
  else call('HSET', keys.costs, ticket, text(cost)) end
end

-- Says of a ticket whether its job can not come: it is over or gone, or its queue is paused.
local function new_look(jobs_prefix)
  local paused = {}
  return function(ticket)
    local id, queue = ticket:match('^(.+) (%S+)$')
    if not id then return true end
    local start = jobs_prefix .. ':' .. queue .. ':'
    if paused[queue] == nil then
      paused[queue] = call('HEXISTS', start .. 'meta', 'paused') == 1
    end
    if paused[queue] then return true end
    local kept = call('HMGET', start .. id, 'timestamp', 'finishedOn')
    return not kept[1] or kept[2] and true or false
  end
end

-- Units of those whose moment is now, if they can come.
local function awaited_units(keys, can_not_come, now)
  local due = call('ZRANGEBYSCORE', keys.tickets, '(' .. text(now - GRACE_MS), text(now), 'LIMIT',
    0, DUE_MAX)
  local there, gone = {}, {}
  for i = 1, #due do
    local list = can_not_come(due[i]) and gone or there
    list[#list + 1] = due[i]
  end
  drop_tickets(keys, gone)
  if #there == 0 then return 0 end
  local units, costs = 0, call('HMGET', keys.costs, unpack(there))
  for i = 1, #there do units = units + (tonumber(costs[i]) or 1) end
  return units
end

-- The lines of a kind, or all of them, from the first to the last.
local function read_lines(lines_key, kind)
  local lines, flat = {}, call('ZRANGE', lines_key, 0, -1, 'WITHSCORES')
  for i = 1, #flat, 2 do
    local of, start = flat[i]:match('^(%a+) (%d+)$')
    if of and (not kind or of == kind) then
      lines[#lines + 1] = { name = flat[i], start = tonumber(start), last = tonumber(flat[i + 1]) }
    end
  end
  table.sort(lines, function(a, b) return a.start < b.start end)
  return lines
end

-- Lines that ended at one of these moments end at this one. Only those: behind others there may be
-- jobs that have no ticket.
local function shorten_lines(keys, ended, at)
  for _, line in ipairs(read_lines(keys.lines)) do
    if ended[line.last] then
      if at < line.start then call('ZREM', keys.lines, line.name)
      else call('ZADD', keys.lines, text(at), line.name) end
    end
  end
end

-- Takes those from the end who can not come.
local function trim_lines(keys, can_not_come, now)
  local gone, ended, at = {}, {}, 0
  local first, size = 0, 1
  while size > 0 do
    local page = call('ZREVRANGE', keys.tickets, first, first + size - 1, 'WITHSCORES')
    first, size = first + size, #page > 0 and first < TICKETS_MAX and PAGE or 0
    for i = 1, #page, 2 do
      at = tonumber(page[i + 1])
      if at <= now or not can_not_come(page[i]) then
        size = 0
        break
      end
      gone[#gone + 1], ended[at], at = page[i], true, 0
    end
  end
  if #gone == 0 then return end
  drop_tickets(keys, gone)
  shorten_lines(keys, ended, at)
end
