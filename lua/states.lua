-- states: where each job is.
--
-- KEYS[1] completed         ZSET
-- KEYS[2] failed            ZSET
-- KEYS[3] delayed           ZSET
-- KEYS[4] prioritized       ZSET
-- KEYS[5] active            LIST
-- KEYS[6] wait              LIST
-- KEYS[7] paused            LIST    left by BullMQ 5
-- KEYS[8] waiting_children  ZSET
-- ARGV[1] job_prefix        start of a job's hash key
-- ARGV[2…] ids
--
-- Undeclared keys: the job hashes, `job_prefix .. id`.
--
-- Returns  per job `completed`, `failed`, `delayed`, `prioritized`, `active`, `wait`, `paused`,
--          `waiting-children`, `orphan` (a hash in no state) or `absent`
-- Moves    nothing
-- Repeat   safe: reads only.

local SETS = { KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[8] }
local SET_STATES = { 'completed', 'failed', 'delayed', 'prioritized', 'waiting-children' }
local LISTS, LIST_STATES = { KEYS[5], KEYS[6], KEYS[7] }, { 'active', 'wait', 'paused' }
local prefix = ARGV[1]
-- With more open ids than this, one walk through a list is cheaper than a search for each.
local SEARCH_MAX = 4
local PAGE = 5000

local ids, states, open = {}, {}, 0
for at = 2, #ARGV do ids[at - 1] = ARGV[at] end
local function found(position, state)
  if not states[position] then
    states[position] = state
    open = open - 1
  end
end

open = #ids
for i = 1, #SETS do
  local scores = open > 0 and call('ZMSCORE', SETS[i], unpack(ids)) or {}
  for position = 1, #scores do
    if scores[position] then found(position, SET_STATES[i]) end
  end
end

local function search(list, state)
  for position = 1, #ids do
    if not states[position] and call('LPOS', list, ids[position]) then found(position, state) end
  end
end

local function walk(list, state)
  local wanted = {} -- an id may be asked for twice
  for position = 1, #ids do
    wanted[ids[position]] = wanted[ids[position]] or {}
    table.insert(wanted[ids[position]], position)
  end
  for first = 0, call('LLEN', list) - 1, PAGE do
    local page = call('LRANGE', list, first, first + PAGE - 1)
    for i = 1, #page do
      for _, position in ipairs(wanted[page[i]] or {}) do found(position, state) end
    end
    if open == 0 then return end
  end
end

for i = 1, #LISTS do
  if open > SEARCH_MAX then
    walk(LISTS[i], LIST_STATES[i])
  elseif open > 0 then
    search(LISTS[i], LIST_STATES[i])
  end
end
for position = 1, #ids do
  if not states[position] then
    local exists = call('EXISTS', prefix .. ids[position]) == 1
    states[position] = exists and 'orphan' or 'absent'
  end
end
return states
