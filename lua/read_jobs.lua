-- read_jobs: what the hashes of jobs say, and where each job is.
--
-- KEYS[1] completed         ZSET
-- KEYS[2] failed            ZSET
-- KEYS[3] delayed           ZSET    job id by due time
-- KEYS[4] prioritized       ZSET
-- KEYS[5] waiting_children  ZSET
-- KEYS[6] active            LIST
-- ARGV[1] job_prefix        start of a job's hash key
-- ARGV[2] whole             '1' to read what a client wrote as well, which may be large
-- ARGV[3] active_max        active jobs that are searched for each id
-- ARGV[4…] ids
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, and their `:lock`.
--
-- Returns  per job its state, its score there or '', its lock's token or '', its FIELDS, and with
--          `whole` its CONTENT; an empty list for a job without a hash, also if its key holds
--          something else. A job that is in no set and not active counts as `wait`: the list is
--          long, and is not searched.
-- Moves    nothing
-- Repeat   safe: reads only.

local SETS = { KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5] }
local SET_STATES = { 'completed', 'failed', 'delayed', 'prioritized', 'waiting-children' }
local active, prefix, is_whole, active_max = KEYS[6], ARGV[1], ARGV[2] == '1', ARGV[3]
local FIELDS = { 'timestamp', 'priority', 'processedOn', 'atm', 'ats', 'finishedOn', 'progress',
  'returnvalue', 'failedReason', 'stacktrace', 'pb', 'attemptsMade' }
local CONTENT = { 'name', 'data', 'opts', 'parentKey', 'parent', 'rjk', 'deid' }
local PROCESSED_ON = 3

local ids, scores = {}, {}
for at = 4, #ARGV do ids[#ids + 1] = ARGV[at] end
for i = 1, #SETS do scores[i] = call('ZMSCORE', SETS[i], unpack(ids)) end

local function place_of(position, id, fields, token)
  for i = 1, #SETS do
    if scores[i][position] then return SET_STATES[i], scores[i][position] end
  end
  -- A job that was never started, or is to start anew, is not active.
  local was_started = token ~= '' or fields[PROCESSED_ON]
  if was_started and call('LPOS', active, id, 'MAXLEN', active_max) then return 'active', '' end
  return 'wait', ''
end

local rows = {}
for position = 1, #ids do
  local id, job_key, row = ids[position], prefix .. ids[position], {}
  -- A key of another type must not keep the other jobs from being read.
  local fields = redis.pcall('HMGET', job_key, unpack(FIELDS))
  if not fields.err and (fields[1] or call('EXISTS', job_key) == 1) then
    local token = redis.pcall('GET', job_key .. ':lock') or ''
    if type(token) ~= 'string' then token = '' end
    local state, score = place_of(position, id, fields, token)
    row[1], row[2], row[3] = state, score, token
    for i = 1, #FIELDS do row[3 + i] = fields[i] end
    if is_whole then
      local content = call('HMGET', job_key, unpack(CONTENT))
      for i = 1, #CONTENT do row[3 + #FIELDS + i] = content[i] end
    end
  end
  rows[position] = row
end
return rows
