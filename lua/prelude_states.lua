-- prelude_states: find out where jobs are. Joined after `prelude`.

-- The order in which callers name the sets and lists.
local FOUND_IN_SET = { 'completed', 'failed', 'delayed', 'prioritized', 'waiting-children' }
local FOUND_IN_LIST = { 'active', 'wait', 'paused' }
-- With more open ids than this, one walk through a list is cheaper than a search for each.
local SEARCH_MAX = 4
local PAGE = 5000

-- Calls `found(position)` for the ids that are in the list, each looked for alone.
local function search_list(list, ids, states, found)
  for position = 1, #ids do
    if not states[position] and call('LPOS', list, ids[position]) then found(position) end
  end
end

-- The same, in one walk through the list that ends when `found` answers that none is open.
local function walk_list(list, ids, found)
  local wanted = {} -- an id may be asked for twice
  for position = 1, #ids do
    wanted[ids[position]] = wanted[ids[position]] or {}
    table.insert(wanted[ids[position]], position)
  end
  for first = 0, call('LLEN', list) - 1, PAGE do
    local page = call('LRANGE', list, first, first + PAGE - 1)
    for i = 1, #page do
      for _, position in ipairs(wanted[page[i]] or {}) do
        if found(position) == 0 then return end
      end
    end
  end
end

-- Per id one of the states above, `orphan` (a hash in no state) or `absent`.
local function find_states(prefix, sets, lists, ids)
  local states, open = {}, #ids
  for i = 1, #sets do
    local scores = open > 0 and call('ZMSCORE', sets[i], unpack(ids)) or {}
    for position = 1, #scores do
      if scores[position] and not states[position] then
        states[position] = FOUND_IN_SET[i]
        open = open - 1
      end
    end
  end
  for i = 1, #lists do
    local function found(position)
      if not states[position] then
        states[position] = FOUND_IN_LIST[i]
        open = open - 1
      end
      return open
    end
    if open > SEARCH_MAX then
      walk_list(lists[i], ids, found)
    elseif open > 0 then
      search_list(lists[i], ids, states, found)
    end
  end
  for position = 1, #ids do
    if not states[position] then
      local exists = call('EXISTS', prefix .. ids[position]) == 1
      states[position] = exists and 'orphan' or 'absent'
    end
  end
  return states
end

-- Others keep hashes of a queue, too, those of schedules first of all. Every job has one of these.
local function is_job(job_key)
  if call('TYPE', job_key).ok ~= 'hash' then return false end
  local field = call('HMGET', job_key, 'timestamp', 'ats')
  return field[1] ~= false or field[2] ~= false
end

local function has_parts(job_key)
  local parts = { job_key .. ':lock' }
  for i = 1, #JOB_PARTS do parts[i + 1] = job_key .. JOB_PARTS[i] end
  return call_keys('EXISTS', parts) > 0
end
