-- remove: delete a job, and its children if asked, unless somebody works on one of them.
--
-- KEYS[1] meta         HASH    not looked at: it tells a cluster where the queue is
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] id
-- ARGV[3] with_children  '1' or ''
--
-- Undeclared keys: all of the queue, and all of the queues of its parent and its descendants.
--
-- Returns  jobs left to remove: call again until it is 0; -1 there is no such job; -2 locked, or
--          one of the children is; -4 it has more descendants than one call may look at; -8 it is
--          the current iteration of a schedule
-- Moves    any state -> removed
-- Repeat   safe: the second time there is no such job.

local key, id, job_key = every_key(ARGV[1]:sub(1, -2)), ARGV[2], ARGV[1] .. ARGV[2]
local JOB_MISSING, LOCKED, TOO_MANY, CURRENT_ITERATION = -1, -2, -4, -8

if is_current_iteration(key, id) then return CURRENT_ITERATION end
if is_locked(job_key) then return LOCKED end
if ARGV[3] ~= '' then
  local descendants = walk_tree(job_key, all_children, function() return true end)
  if not descendants then return TOO_MANY end
  if is_any_locked(descendants) then return LOCKED end
  local left = remove_leaves(descendants)
  if left > 0 then return left + 1 end
end
if not delete_one(key, id, leave(key, id)) then return JOB_MISSING end
return 0
