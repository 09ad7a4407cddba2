-- prelude_fair: turns of those who share a fair queue. Joined after `prelude`, before
-- `prelude_place`.
--
-- In a fair queue all jobs wait in `prioritized`, also those without a priority; BullMQ's workers
-- pop them there like any other. The low bits of a score are a turn instead of an arrival. Whoever
-- brings many jobs takes one turn after the other; whoever comes later begins at the turn that is
-- served now, so their jobs alternate: start-time fair queueing (Goyal, Vin, Cheng 1996).
--
-- Whose a job is stands in its hash as `gid`, BullMQ Pro's word for groups. Jobs without one share
-- a line. State is a ZSET of the queue: `PRIORITY:WHOSE` by the last turn that was given,
-- `PRIORITY` by the last that anybody was given, `PRIORITY<` by the one that was served at the
-- last look.

local PRIORITY_STEP = 4294967296 -- 2^32: the low bits of a priority score are turns or arrivals
local TURNS_KEPT_S = 604800

-- The score of the next job of a priority.
local function head_of(prioritized, priority)
  local first = priority * PRIORITY_STEP
  return tonumber(call('ZRANGEBYSCORE', prioritized, text(first), text(first + PRIORITY_STEP - 1),
    'WITHSCORES', 'LIMIT', '0', '1')[2])
end

-- Gives turns: of `jobs`, priority and id in turn, the priorities become scores. Those of `front`,
-- scores and ids, go to the turn that is served now: before it, that one would fall back, and with
-- it all who come anew. No job gets a later turn than `at_most` has by its id.
local function take_turns(key, jobs, front, at_most)
  if #jobs + #front == 0 then return end
  local prefix = key.wait:sub(1, -5)
  local turns_key, given, served = 'bullwark:' .. prefix .. 'turns', {}, {}
  if call('EXISTS', key.prioritized) == 0 then call('DEL', turns_key) end -- all begin anew
  local function last_of(member)
    return given[member] or tonumber(call('ZSCORE', turns_key, member)) or -1
  end
  local function served_now(priority, name)
    local head = head_of(key.prioritized, priority)
    local turn = head and head - priority * PRIORITY_STEP or last_of(name) + 1
    return math.max(turn, last_of(name .. '<'))
  end

  for i = 1, #jobs, 2 do
    local priority, name = jobs[i], text(jobs[i])
    local whose = name .. ':' .. (call('HGET', prefix .. jobs[i + 1], 'gid') or '')
    served[name] = served[name] or served_now(priority, name)
    local turn = math.min(math.max(served[name], last_of(whose) + 1),
      at_most[jobs[i + 1]] or PRIORITY_STEP - 1)
    given[whose], given[name] = turn, math.max(last_of(name), turn)
    jobs[i] = priority * PRIORITY_STEP + turn
  end
  for i = 1, #front, 2 do
    front[i] = head_of(key.prioritized, front[i] / PRIORITY_STEP) or front[i]
  end

  local state = {}
  for name, turn in pairs(served) do given[name .. '<'] = turn end
  for member, turn in pairs(given) do
    state[#state + 1] = turn
    state[#state + 1] = member
  end
  call_many('ZADD', turns_key, state)
  call('EXPIRE', turns_key, TURNS_KEPT_S)
end
