-- How many attempts ended, how, and how long they took: what statistics read in place of `jobs`.
--
-- Whoever commits how attempts ended adds one row per commit, workspace, queue and type, in the same
-- statement: a plain insert, for which nobody waits. A duty sums the rows up within seconds, by
-- minute, and minutes by hour; it takes rows away and adds their sums in one transaction. So each
-- ending is counted once, whoever dies when, and reading costs the same at any number of jobs.
-- Jobs without a workspace have no readers and are not counted.
SET LOCAL search_path = public;

-- Milliseconds as the number of a bucket: four to an octave, so a bucket is 19 % wide. Bucket b ends
-- below 2^((b+1)/4) - 1 ms. The last one, 127, begins at 42 days.
CREATE FUNCTION bullwark.latency_bucket(ms double precision) RETURNS smallint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT least(floor(ln(greatest(ms, 0) + 1) * 5.770780163555854), 127)::smallint
$$;

CREATE TABLE bullwark.ended_attempts (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  ended_at     timestamptz NOT NULL DEFAULT now(),
  workspace_id uuid NOT NULL,
  job_queue    text NOT NULL,
  job_type     text NOT NULL,
  completed    int NOT NULL DEFAULT 0,
  failed       int NOT NULL DEFAULT 0,
  dead         int NOT NULL DEFAULT 0,
  cancelled    int NOT NULL DEFAULT 0,
  run_ms       double precision NOT NULL DEFAULT 0,
  -- a bucket per attempt: how long it ran, and how long the first one of a job had waited
  runs         smallint[],
  waits        smallint[]
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

-- `runs` and `waits` count per bucket, from the first one on.
CREATE TABLE bullwark.rollups (
  workspace_id uuid NOT NULL,
  step         text NOT NULL,
  at           timestamptz NOT NULL,
  job_queue    text NOT NULL,
  job_type     text NOT NULL,
  completed    bigint NOT NULL,
  failed       bigint NOT NULL,
  dead         bigint NOT NULL,
  cancelled    bigint NOT NULL,
  run_ms       double precision NOT NULL,
  runs         bigint[] NOT NULL,
  waits        bigint[] NOT NULL,
  PRIMARY KEY (workspace_id, step, at, job_queue, job_type),
  CONSTRAINT rollups_step CHECK (step IN ('minute', 'hour'))
);
CREATE INDEX rollups_at ON bullwark.rollups (step, at);

CREATE FUNCTION bullwark.add_counts(a bigint[], b bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT coalesce(array_agg(coalesce(x, 0) + coalesce(y, 0) ORDER BY n), '{}')
  FROM unnest(a, b) WITH ORDINALITY AS u (x, y, n)
$$;

-- The newest dead letters of a workspace.
CREATE INDEX dead_letters_died ON bullwark.dead_letters (workspace_id, died_at DESC);
GRANT ALL ON bullwark.ended_attempts, bullwark.rollups TO service_role;
