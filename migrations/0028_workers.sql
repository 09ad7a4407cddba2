-- Who works: one row per worker, which writes it again and again while it lives.
--
-- For people only, and to say that a job waits because nobody runs its type: nothing is decided by
-- it. Read by the server alone, for it is about the installation.
SET LOCAL search_path = public;

CREATE TABLE bullwark.workers (
  worker_id  text PRIMARY KEY,
  prefix     text NOT NULL,
  -- in the order in which it looks at them
  queues     text[] NOT NULL,
  -- none: whatever comes
  job_types  text[],
  slots      int NOT NULL,
  is_paused  boolean NOT NULL,
  version    text NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  seen_at    timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
GRANT ALL ON bullwark.workers TO service_role;
