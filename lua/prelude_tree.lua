-- prelude_tree: find the descendants of a job, and remove them. Joined after `prelude_remove`.
--
-- Children may be in any queue of any prefix, and a tree may be large: it is removed leaves
-- first, a bounded part per call, so that a call that is repeated goes on where the last ended.

local TREE_MAX = 20000 -- jobs that one call looks at
local REMOVE_MAX = 1000 -- jobs that one call removes

-- The children of a job; nil: there are more than `room`.
local function pending_children(job_key, room)
  if call('SCARD', job_key .. ':dependencies') > room then return nil end
  return call('SMEMBERS', job_key .. ':dependencies')
end

local function all_children(job_key, room)
  -- Most jobs have none, and a tree is mostly such jobs: one look for them.
  if call('EXISTS', job_key .. ':dependencies', job_key .. ':processed', job_key .. ':failed',
    job_key .. ':unsuccessful') == 0 then return {} end
  local ended = call('HLEN', job_key .. ':processed') + call('HLEN', job_key .. ':failed')
    + call('ZCARD', job_key .. ':unsuccessful')
  local found = pending_children(job_key, room - ended)
  if not found then return nil end
  local function append(keys)
    for i = 1, #keys do found[#found + 1] = keys[i] end
  end
  append(call('HKEYS', job_key .. ':processed'))
  append(call('HKEYS', job_key .. ':failed'))
  append(call('ZRANGE', job_key .. ':unsuccessful', '0', '-1'))
  return found
end

-- Descendants that `wants` accepts, parents before their children; one that it does not accept
-- hides what is below it. Nil: there are too many.
local function walk_tree(job_key, children_of, wants)
  local found, seen, at = {}, { [job_key] = true }, 0
  local parent_key = job_key
  while parent_key do
    local children = children_of(parent_key, TREE_MAX - #found)
    if not children then return nil end
    for i = 1, #children do
      local child_key = children[i]
      if not seen[child_key] and wants(child_key) then
        found[#found + 1] = { job_key = child_key, parent_key = parent_key }
      end
      seen[child_key] = true
    end
    at = at + 1
    parent_key = found[at] and found[at].job_key
  end
  return found
end

local function is_locked(job_key)
  return call('EXISTS', job_key .. ':lock') == 1
end

local function is_any_locked(found)
  local locks = {}
  for i = 1, #found do locks[i] = found[i].job_key .. ':lock' end
  return call_keys('EXISTS', locks) > 0
end

-- Deletes a job that has left this state, with an event if there was something; answers whether.
local function delete_one(key, id, prev, doomed_parent)
  local job_key = key.base .. id
  untie(key, id, false, doomed_parent)
  if prev == 'active' then wake(key.marker, read_meta(key.meta), key.active) end
  local existed = call('EXISTS', job_key) == 1
  if existed then
    delete_with_locks({ job_key })
    announce_removed(key, id, prev or 'unknown')
    trim_events(key.events, read_meta(key.meta))
  end
  return existed or prev ~= nil
end

-- Without regard to what the child's hash says, which may be gone. Only the parent that stays is
-- released when none is left: the others go next.
local function forget_child(child_key, parent_key, staying_key)
  call('HDEL', parent_key .. ':processed', child_key)
  call('HDEL', parent_key .. ':failed', child_key)
  call('ZREM', parent_key .. ':unsuccessful', child_key)
  if parent_key == staying_key then
    detach_from_parent(child_key, parent_key, false)
  else
    call('SREM', parent_key .. ':dependencies', child_key)
  end
end

-- Removes the last ones found, as many as one call may. Answers how many are left.
local function remove_leaves(found, staying_key)
  local first, queues = math.max(#found - REMOVE_MAX, 0) + 1, {}
  for i = first, #found do
    local queue_key = queue_key_of(found[i].job_key)
    local queue = queues[queue_key] or { key = every_key(queue_key), ids = {} }
    queue.ids[#queue.ids + 1] = id_of(found[i].job_key)
    queues[queue_key] = queue
  end
  for _, queue in pairs(queues) do queue.states = leave_many(queue.key, queue.ids) end
  for i = #found, first, -1 do
    local child_key, parent_key = found[i].job_key, found[i].parent_key
    local queue, id = queues[queue_key_of(child_key)], id_of(child_key)
    delete_one(queue.key, id, queue.states[id], parent_key)
    forget_child(child_key, parent_key, staying_key)
  end
  return first - 1
end
