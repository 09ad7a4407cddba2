-- Names of queues as long as BullMQ's clients like them.
--
-- The specification's 50 characters are enough for its own queues; shared queues have names that
-- others chose. Widening a varchar changes the catalog only, no row is touched.
ALTER TABLE jobs ALTER COLUMN job_queue TYPE varchar(255);
