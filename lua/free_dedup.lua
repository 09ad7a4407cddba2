-- free_dedup: a deduplication id is free again, if this job owns it.
--
-- KEYS[1] owner  STRING  `de:…`, the id of the job that owns it
-- ARGV[1] id     of the job
--
-- Returns  1 it is free; 0 another job owns it, or none does
-- Moves    nothing
-- Repeat   safe: the second time nobody owns it.

if call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return call('DEL', KEYS[1])
