-- What a job brought along from Redis.
--
-- A job that a BullMQ client added has options, a parent, a schedule and a deduplication id that
-- the columns of the record do not name. They are kept here as they came, so that the job can be
-- put back into Redis as it was. Bullwark's own plain jobs leave it empty: it costs them nothing.
ALTER TABLE jobs ADD COLUMN wire json;
