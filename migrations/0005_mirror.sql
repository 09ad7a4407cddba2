-- Jobs that BullMQ clients own, and how far their events were followed.
--
-- Such a job is named by its queue and an id of the client's choice, and an event says only that
-- id. This table finds the row of the record for it, also after its hash in Redis is gone. An id
-- that a client uses again names its newest job. Bullwark's own jobs are not in it: it costs them
-- nothing.
CREATE TABLE bullwark.foreign_jobs (
  job_queue text NOT NULL,
  redis_id  text NOT NULL,
  job_id    uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  -- the memory of Redis in which the job was last seen: absent from the same one, it was removed;
  -- absent from another one, it was lost and is put back
  epoch     text,
  PRIMARY KEY (job_queue, redis_id)
);
CREATE INDEX foreign_jobs_job ON bullwark.foreign_jobs (job_id);

INSERT INTO bullwark.foreign_jobs (job_queue, redis_id, job_id)
  SELECT DISTINCT ON (job_queue, redis_id) job_queue, redis_id, id
  FROM jobs WHERE redis_id IS NOT NULL
  ORDER BY job_queue, redis_id, created_at DESC;

-- The last event of each queue whose effect on the record is committed: the id of its entry in the
-- stream. It is written in the transaction that writes the effect.
CREATE TABLE bullwark.mirror_positions (
  prefix    text NOT NULL,
  job_queue text NOT NULL,
  event_ms  bigint NOT NULL,
  event_seq bigint NOT NULL,
  PRIMARY KEY (prefix, job_queue)
);

-- A time of Redis, in ms, for a column. A client may have written any number: what no column can
-- hold is refused, and the job with it.
CREATE FUNCTION bullwark.at_ms(ms bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT to_timestamp(ms / 1000.0) $$;
