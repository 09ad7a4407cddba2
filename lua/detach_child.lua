-- detach_child: a child has no parent any more; the parent does not wait for it.
--
-- KEYS[1] child        HASH    the job
-- ARGV[1] parent_key   as the child's hash names it
--
-- Undeclared keys: the parent's `:dependencies`, and the keys of its queue.
--
-- Returns  0; 1 the parent does not wait for it; -1 no child; -5 no parent
-- Moves    nothing; the parent, if this was its last pending child: waiting-children -> wait
-- Repeat   safe: the second time the parent does not wait for it.

local child_key, parent_key = KEYS[1], ARGV[1]
local NOT_PENDING, JOB_MISSING, PARENT_MISSING = 1, -1, -5

if call('EXISTS', child_key) == 0 then return JOB_MISSING end
if call('EXISTS', parent_key) == 0 then return PARENT_MISSING end
if call('SISMEMBER', parent_key .. ':dependencies', child_key) == 0 then return NOT_PENDING end
detach_from_parent(child_key, parent_key, false)
call('HDEL', child_key, 'parentKey', 'parent')
return 0
