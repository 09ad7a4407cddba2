-- add_logs: append rows to the logs of jobs.
--
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] keep         the newest so many rows of a log stay, unless the job's own options say
-- ARGV[3…] two per row: id, row
--
-- Undeclared keys: the job hashes, `job_prefix .. id`, and their `:logs`.
--
-- Returns  how many rows were appended: none to a job without a hash
-- Moves    nothing
-- Repeat   not safe: the rows come again.

local prefix, keep = ARGV[1], tonumber(ARGV[2])
local FIRST, STRIDE = 3, 2

local rows, order, appended = {}, {}, 0
for at = FIRST, #ARGV, STRIDE do
  local id = ARGV[at]
  if not rows[id] then
    rows[id] = {}
    order[#order + 1] = id
  end
  table.insert(rows[id], ARGV[at + 1])
end
for _, id in ipairs(order) do
  local job_key = prefix .. id
  local opts = call('HGET', job_key, 'opts')
  if opts then
    call_many('RPUSH', job_key .. ':logs', rows[id])
    local own = tonumber(opts:match('"kl"%s*:%s*(%d+)') or opts:match('"keepLogs"%s*:%s*(%d+)'))
    call('LTRIM', job_key .. ':logs', -math.max(own or keep, 1), -1)
    appended = appended + #rows[id]
  end
end
return appended
