-- What Redis knows of queues as a whole: their settings, and their schedules.
--
-- Redis may forget them like any job, so they stand here, too: written before Redis is told when
-- Bullwark changes them, and copied a moment later when a BullMQ client does. `version` grows with
-- every change that Bullwark makes; a copy of what Redis shows is written only over the version
-- that was read before Redis was looked at. `is_told` is false until Redis has been told.
CREATE TABLE bullwark.queues (
  prefix           text NOT NULL,
  job_queue        text NOT NULL,
  is_paused        boolean NOT NULL DEFAULT false,
  -- jobs that may be active at once; none: any number
  concurrency      bigint,
  -- starts per window; none: any number
  rate_max         bigint,
  rate_duration_ms bigint,
  events_max       bigint,
  has_v5_peers     boolean NOT NULL DEFAULT false,
  version          bigint NOT NULL DEFAULT 0,
  is_told          boolean NOT NULL DEFAULT true,
  changed_at       timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (prefix, job_queue)
);

CREATE TABLE bullwark.schedules (
  prefix      text NOT NULL,
  job_queue   text NOT NULL,
  schedule_id text NOT NULL,
  -- when its current iteration is due; none: Redis has not said so yet
  due_ms      bigint,
  -- its hash in Redis, as it is there: texts by name
  fields      json NOT NULL,
  version     bigint NOT NULL DEFAULT 0,
  is_told     boolean NOT NULL DEFAULT true,
  -- it is to be removed, and the row goes when Redis has been told
  is_removed  boolean NOT NULL DEFAULT false,
  changed_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (prefix, job_queue, schedule_id)
);
