-- arrange: jobs wait where they do in a queue of its kind, after it became fair or is so no more.
--
-- KEYS[1] wait         LIST    job ids without priority, next one at the tail
-- KEYS[2] paused       LIST    where BullMQ 5 keeps them while the queue is paused
-- KEYS[3] prioritized  ZSET    job id by priority and turn or arrival
-- KEYS[4] pc           STRING  counts arrivals
-- KEYS[5] marker       ZSET    wakes one blocked worker
-- KEYS[6] active       LIST    only measured, for the global concurrency
-- KEYS[7] meta         HASH    queue settings
-- KEYS[8] turns        ZSET    see prelude_fair
-- ARGV[1] max          jobs moved by this call
-- ARGV[2] from         where the call before ended; first `begin`
--
-- Undeclared keys: the job hashes.
--
-- Returns  where to go on; '': at the end
-- Moves    a fair queue: wait | paused -> prioritized; another one: prioritized -> wait
-- Repeat   safe from the beginning: whoever was given a turn gets it again, or an earlier one.

local key = { wait = KEYS[1], prioritized = KEYS[3], pc = KEYS[4], marker = KEYS[5],
  active = KEYS[6] }
local turns, max, from = KEYS[8], tonumber(ARGV[1]), ARGV[2]
local meta, batch = read_meta(KEYS[7]), new_batch()

local function give_back_to_wait()
  -- Later arrivals come behind all turns.
  local top = tonumber(call('ZREVRANGE', turns, '0', '0', 'WITHSCORES')[2]) or 0
  if top > (tonumber(call('GET', key.pc)) or 0) then call('SET', key.pc, text(top)) end
  call('DEL', turns)
  -- The last ones first: each goes before those that were moved until now.
  local last = text(PRIORITY_STEP - 1)
  local ids = call('ZREVRANGEBYSCORE', key.prioritized, last, '0', 'LIMIT', '0', text(max))
  call_many('ZREM', key.prioritized, ids)
  for i = 1, #ids do place_front(batch, ids[i], 0) end
  return #ids == max and 'more' or ''
end

local function take_from_lists()
  local seen, prefix = 0, key.wait:sub(1, -5)
  for _, list in ipairs({ KEYS[1], KEYS[2] }) do
    local ids = max > seen and call('RPOP', list, text(max - seen)) or {}
    seen = seen + #ids
    for i = 1, #ids do
      -- Entries `0:…` are markers of old BullMQ versions.
      if ids[i]:sub(1, 2) ~= '0:' then
        place(batch, ids[i], tonumber(call('HGET', prefix .. ids[i], 'priority')) or 0)
      end
    end
  end
  return seen == max and 'lists' or '-inf'
end

-- In their order. Nobody gets a later turn than it had, or than its arrival: none is met again
-- further on.
local function turn_arrivals()
  local found = call('ZRANGEBYSCORE', key.prioritized, from, '+inf', 'WITHSCORES', 'LIMIT', '0',
    text(max))
  for i = 1, #found, 2 do
    local priority = math.floor(tonumber(found[i + 1]) / PRIORITY_STEP)
    batch.at_most[found[i]] = tonumber(found[i + 1]) - priority * PRIORITY_STEP
    place(batch, found[i], priority)
  end
  return #found == 2 * max and '(' .. text(tonumber(found[#found])) or ''
end

local next_from
if not meta.fair then next_from = give_back_to_wait()
elseif from == 'begin' then
  call('DEL', turns)
  next_from = 'lists'
elseif from == 'lists' then next_from = take_from_lists()
else next_from = turn_arrivals() end
flush(batch, key, meta)
return next_from
