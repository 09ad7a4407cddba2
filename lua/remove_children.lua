-- remove_children: delete the children of a job that nobody has begun to work on.
--
-- KEYS[1] meta         HASH    not looked at: it tells a cluster where the queue is
-- ARGV[1] job_prefix   start of a job's hash key
-- ARGV[2] id
--
-- Undeclared keys: all of the queue, and all of the queues of its descendants.
--
-- Returns  {removed by this call, left: call again until it is 0}; left -4: it has more
--          descendants than one call may look at
-- Moves    any state but failed and active -> removed. A parent whose last child goes is
--          released.
-- Repeat   safe: what was removed is not found again.

local job_key = ARGV[1] .. ARGV[2]
local TOO_MANY = -4

-- A locked one is worked on, and its children are for it; a failed one is somebody's to look at.
local function is_untouched(child_key)
  local key = keys_of_queue(queue_key_of(child_key))
  return not is_locked(child_key) and not call('ZSCORE', key.failed, id_of(child_key))
end

local found = walk_tree(job_key, pending_children, is_untouched)
if not found then return { 0, TOO_MANY } end
local left = remove_leaves(found, job_key)
return { #found - left, left }
