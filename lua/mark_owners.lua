-- mark_owners: note whose jobs are that came before their queue became fair.
--
-- KEYS[1] meta         HASH    queue settings
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2…] two per job: id, whose
--
-- Undeclared keys: the job hashes, `job_prefix .. id`.
--
-- Returns  how many were noted
-- Moves    nothing
-- Repeat   safe: what is noted stays.

local noted = 0
if not read_meta(KEYS[1]).fair then return noted end
for at = 2, #ARGV, 2 do
  local job_key, whose = ARGV[1] .. ARGV[at], ARGV[at + 1]
  if call('EXISTS', job_key) == 1 then noted = noted + call('HSETNX', job_key, 'gid', whose) end
end
return noted
