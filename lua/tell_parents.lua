-- tell_parents: tell parents of children that are over, when the ending itself could not: the
-- child, or its parent, was gone from Redis at that time.
--
-- KEYS[1] meta         HASH    settings of the queue of the first parent; it routes in a cluster
-- ARGV[1] test_now_ms  empty in production: server time is used
-- ARGV[2…] five per child: its key, its parent's key, how it ended (`completed`, `failed`, else it
--          was removed), what it returned (JSON) or why it failed, its `parent` field (JSON)
--
-- Undeclared keys: those of the parents, in whatever queue.
--
-- Returns  nothing
-- Moves    a parent: waiting-children -> wait | prioritized | delayed
-- Repeat   safe: a parent that no longer waits for a child is told nothing.

local FIRST, STRIDE = 2, 5
local now = clock_ms(ARGV[1])

for at = FIRST, #ARGV, STRIDE do
  local child_key, parent_key, ending = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if ending == 'completed' then
    attempt_to(tell_parent_completed, child_key, parent_key, ARGV[at + 3], now)
  elseif ending == 'failed' then
    attempt_to(tell_parent_failed, child_key, parent_key, ARGV[at + 4], ARGV[at + 3], now)
  else
    attempt_to(detach_from_parent, child_key, parent_key)
  end
end
