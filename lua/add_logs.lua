-- add_logs: append rows to the logs of jobs.
--
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2…] three per row: id, row, keep (the newest so many rows of its log stay, unless the job's
--          own options say; '': all)
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, and their `:logs`.
--
-- Returns  how many rows were appended: none to a job without a hash
-- Moves    nothing
-- Repeat   not safe: the rows come again.

local prefix, FIRST, STRIDE = ARGV[1], 2, 3

local function type_of(key) return call('TYPE', key).ok end

-- What the job's own `keepLogs` says; as for BullMQ, 0 is no wish.
local function own_keep(job_key)
  local is_json, opts = pcall(cjson.decode, call('HGET', job_key, 'opts') or '')
  local keep = is_json and type(opts) == 'table' and tonumber(opts.kl)
  if keep and keep >= 1 then return math.floor(keep) end
end

local rows, keeps, order, appended = {}, {}, {}, 0
for at = FIRST, #ARGV, STRIDE do
  local id = ARGV[at]
  if not rows[id] then
    rows[id], keeps[id] = {}, tonumber(ARGV[at + 2])
    order[#order + 1] = id
  end
  table.insert(rows[id], ARGV[at + 1])
end
for _, id in ipairs(order) do
  local job_key, logs = prefix .. id, prefix .. id .. ':logs'
  local kept = type_of(logs)
  if type_of(job_key) == 'hash' and (kept == 'list' or kept == 'none') then
    call_many('RPUSH', logs, rows[id])
    local keep = own_keep(job_key) or keeps[id]
    if keep then call('LTRIM', logs, text(-keep), -1) end
    appended = appended + #rows[id]
  end
end
return appended
