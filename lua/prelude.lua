-- prelude: what every script shares; joined before each script at compile time.
--
-- Numbers that repeat in many commands are formatted once (`text`), because Redis formats a Lua
-- number anew for each call.

local call = redis.call

-- Lua's stack takes about 8,000 values: one command gets at most this many. Even, so that pairs
-- of score and member are never torn apart.
local UNPACK_MAX = 4000

-- The server's clock in ms; a test passes its own.
local function clock_ms(test_now_ms)
  if test_now_ms ~= '' then return tonumber(test_now_ms) end
  local time = call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end

-- `command key v1 v2 …` for any number of values; the sum of the integer replies.
local function call_many(command, key, values)
  local count = #values
  if count == 0 then return 0 end
  if count <= UNPACK_MAX then return call(command, key, unpack(values)) end
  local sum = 0
  for first = 1, count, UNPACK_MAX do
    sum = sum + call(command, key, unpack(values, first, math.min(first + UNPACK_MAX - 1, count)))
  end
  return sum
end

-- `command key1 key2 …` for any number of keys; the sum of the integer replies.
local function call_keys(command, keys)
  local count, sum = #keys, 0
  for first = 1, count, UNPACK_MAX do
    sum = sum + call(command, unpack(keys, first, math.min(first + UNPACK_MAX - 1, count)))
  end
  return sum
end

-- The default that BullMQ writes into a queue's meta hash.
local EVENTS_MAX = 10000

-- The settings of a queue. `events_known` tells whether meta already says how long events may be.
local function read_meta(meta_key)
  local field = call('HMGET', meta_key, 'paused', 'concurrency', 'max', 'duration',
    'opts.maxLenEvents', 'bullwark.v5Peers', 'bullwark.fair')
  return {
    paused = field[1] and true or false,
    concurrency = tonumber(field[2]),
    rate_max = tonumber(field[3]),
    rate_ms = tonumber(field[4]),
    events_max = field[5] or EVENTS_MAX,
    events_known = field[5] and true or false,
    v5_peers = field[6] and true or false,
    fair = field[7] and true or false,
  }
end

-- Whether `owner` of a lock is the attempt of `token`. A job that runs while Redis loses its memory
-- is put back under a lease that its worker may take over: `bullwark:WORKER:rebuilt` for its tokens
-- `bullwark:WORKER:number`.
local function is_holder(owner, token)
  return owner == token or owner == token:gsub('^(bullwark:.*:)%d+$', '%1rebuilt')
end

-- Where jobs without priority wait. BullMQ 5 renames the list while its queue is paused; with such
-- peers we put jobs where they look for them. The key is that of `wait` with another last word.
local function waiting_list(wait, meta)
  if meta.v5_peers and meta.paused then return wait:sub(1, -5) .. 'paused' end
  return wait
end

-- Once per batch instead of MAXLEN on every entry.
local function trim_events(events, meta)
  call('XTRIM', events, 'MAXLEN', '~', meta.events_max)
end

-- Keys that a job may have besides its hash and its lock. Few have any.
local JOB_PARTS = { ':logs', ':dependencies', ':processed', ':failed', ':unsuccessful' }

-- Deletes jobs with their parts. Looks before it deletes, because a deletion is written to the
-- append-only file and sent to replicas with the name of each key, also of those not there.
local function delete_jobs(job_keys)
  local parts = {}
  for i = 1, #job_keys do
    for part = 1, #JOB_PARTS do parts[#parts + 1] = job_keys[i] .. JOB_PARTS[part] end
  end
  if call_keys('EXISTS', parts) > 0 then call_keys('DEL', parts) end
  call_keys('DEL', job_keys)
end
