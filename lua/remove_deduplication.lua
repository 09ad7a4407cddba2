-- remove_deduplication: give a deduplication id free, so that the next job with it is added.
--
-- KEYS[1] owner        STRING  the job that owns the id
-- ARGV[1] id           only if this job owns it; empty: whoever does
--
-- Returns  1 when it was given free, else 0
-- Moves    nothing
-- Repeat   safe, with an id; without one a later owner may lose it.

local owner, id = KEYS[1], ARGV[1]
if id ~= '' and call('GET', owner) ~= id then return 0 end
return call('DEL', owner)
