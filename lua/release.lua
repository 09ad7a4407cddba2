-- release: give claimed jobs back to the front of the queue; no attempt is spent.
--
-- KEYS[1] active       LIST
-- KEYS[2] stalled      SET     suspects
-- KEYS[3] wait         LIST    job ids without priority, next one at the tail
-- KEYS[4] prioritized  ZSET    job id by priority and arrival
-- KEYS[5] marker       ZSET    wakes one blocked worker
-- KEYS[6] meta         HASH    queue settings
-- KEYS[7] events       STREAM
-- KEYS[8] limiter      STRING  activations in this window
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] needs_lock   '1': the lock must be there, '': only not another attempt's
-- ARGV[3…] two per job, in the order of the claim: id, token
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, and their `:lock`.
--
-- Returns  {rate_wait_ms or 0, {position, code, …} of jobs left as they are}: -1 no hash,
--          -2 no lock, -3 not active, -6 the lock is another attempt's
-- Moves    active -> wait | prioritized, before their equals and in their old order
-- Repeat   safe: a job that left active is not touched again.

local active, stalled, events = KEYS[1], KEYS[2], KEYS[7]
local key = { wait = KEYS[3], prioritized = KEYS[4], marker = KEYS[5], active = active }
local prefix, meta = ARGV[1], read_meta(KEYS[6])
local FIRST, STRIDE = 3, 2
local rate_wait_ms = math.max(call('PTTL', KEYS[8]), 0)

local ids, tokens = {}, {}
for at = FIRST, #ARGV, STRIDE do
  ids[#ids + 1] = ARGV[at]
  tokens[#tokens + 1] = ARGV[at + 1]
end
local codes, done = take_active(prefix, active, stalled, ids, tokens, ARGV[2] ~= '')
if done == 0 then return { rate_wait_ms, refusals(codes) } end

local batch = new_batch()
for i = #ids, 1, -1 do -- last first: what is pushed last is taken next
  if codes[i] == DONE then
    local priority = call('HGET', prefix .. ids[i], 'priority')
    place_front(batch, ids[i], tonumber(priority) or 0)
    announce_waiting(events, ids[i], 'active')
  end
end
flush(batch, key, meta)
trim_events(events, meta)
return { rate_wait_ms, refusals(codes) }
