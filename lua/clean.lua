-- clean: delete jobs of one state that are older than a grace time, oldest first.
--
-- KEYS[1] from         LIST | ZSET  the state
-- KEYS[2] marker       ZSET    wakes one blocked worker
-- KEYS[3] active       LIST    only measured, for the global concurrency
-- KEYS[4] meta         HASH    queue settings
-- KEYS[5] events       STREAM
-- KEYS[6] stalled      SET     suspects
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] test_now_ms  empty in production: server time is used
-- ARGV[3] state        as KEYS[1]
-- ARGV[4] grace_ms     younger jobs stay; '': none does
-- ARGV[5] skip         jobs at the old end that earlier calls left
-- ARGV[6] look_max     jobs looked at by this call
-- ARGV[7] delete_max   jobs deleted by this call
-- ARGV[8] announces    '1': a `cleaned` event; '': none
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, their parts and locks, `repeat`, `de:…` and
--                  `dn:…`, and the keys of parents, in whatever queue.
--
-- Returns  {skip for the next call, or -1: there are no more to look at, ids deleted}
-- Moves    the state -> removed. An active job with a lock stays, and so does the current
--          iteration of a schedule.
-- Repeat   safe: what was deleted is not found again; its ids are not answered again.

local from, marker, active, meta, events = KEYS[1], KEYS[2], KEYS[3], read_meta(KEYS[4]), KEYS[5]
local prefix, state, look_max, delete_max = ARGV[1], ARGV[3], tonumber(ARGV[6]), tonumber(ARGV[7])
local key, skip = every_key(prefix:sub(1, -2)), tonumber(ARGV[5])
local is_list = state == 'wait' or state == 'paused' or state == 'active'
local cutoff = ARGV[4] ~= '' and clock_ms(ARGV[2]) - tonumber(ARGV[4])
local NO_MORE = -1

-- What tells how old a job is: the first of these that it has. A job without any is old.
local AGE_FIELDS = { delayed = { 'processedOn', 'timestamp' }, prioritized = { 'timestamp' } }
local fields = AGE_FIELDS[state] or { 'finishedOn', 'processedOn', 'timestamp' }
local is_finished = state == 'completed' or state == 'failed' -- there the score tells

local function oldest()
  if is_list then
    local page = call('LRANGE', from, -(skip + look_max), -(skip + 1))
    for i = 1, math.floor(#page / 2) do -- the tail is the old end
      page[i], page[#page + 1 - i] = page[#page + 1 - i], page[i]
    end
    return page
  elseif is_finished and cutoff then
    return call('ZRANGEBYSCORE', from, '-inf', text(cutoff), 'LIMIT', ARGV[5], ARGV[6])
  end
  return call('ZRANGE', from, skip, skip + look_max - 1)
end

local function is_old(job_key)
  if not cutoff or is_finished then return true end
  local known = call('HMGET', job_key, unpack(fields))
  for i = 1, #fields do
    if known[i] then return tonumber(known[i]) <= cutoff end
  end
  return true
end

local function stays(id)
  if state == 'active' and call('EXISTS', prefix .. id .. ':lock') == 1 then return true end
  return is_current_iteration(key, id) or not is_old(prefix .. id)
end

local page = oldest()
local gone, doomed = {}, {}
for i = 1, #page do
  if #gone < delete_max and not stays(page[i]) then
    gone[#gone + 1] = page[i]
    doomed[#doomed + 1] = prefix .. page[i]
  end
end
if is_list then
  for i = 1, #gone do call('LREM', from, -1, gone[i]) end
else
  call_many('ZREM', from, gone)
end
if state == 'active' then call_many('SREM', KEYS[6], gone) end
-- Not before they are out of their state: a parent of this queue may be one of them.
for i = 1, #gone do untie(key, gone[i], true) end
delete_with_locks(doomed)
if state == 'active' and #gone > 0 then wake(marker, meta, active) end

local next_skip = #page < look_max and NO_MORE or skip + #page - #gone
if ARGV[8] ~= '' and (#gone > 0 or next_skip == NO_MORE) then
  call('XADD', events, '*', 'event', 'cleaned', 'count', #gone)
  trim_events(events, meta)
end
return { next_skip, gone }
