-- prelude_quota_told: what is kept of the service's own words. Joined after `prelude_quota`.
--
-- `l:NAME` is "limit left since resets trial tried". `trial`: when a call may find out whether
-- there is more again, 0 where the service names the end; `tried`: 1 once one was let through.

-- A service that says that nothing is left, and not for how long, is tried again after this time.
local TRIAL_MS = 600000

local function write_told(limit, left, since, resets, trial, tried)
  return string.format('%.0f %.0f %.0f %.0f %.0f %.0f', limit, left, since, resets, trial, tried)
end

-- What is kept of these words once a call of this cost is made.
local function pay_told(t, cost, now)
  local limit, left, since, resets, trial, tried = unpack(t.kept)
  trial = trial and trial > 0 and now + TRIAL_MS or 0
  return write_told(limit, math.max(0, left - cost), since, resets, trial,
    t.is_trial and 1 or tried or 0)
end

-- The words whose limit is below this cost, if there are any.
local function too_small(said, cost)
  for _, t in ipairs(said) do
    if t.kept[1] > 0 and t.kept[1] < cost then return t end
  end
end
