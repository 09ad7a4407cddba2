-- The record of jobs.
--
-- `jobs` and `job_logs` are the specification's tables with its column names (`timestamptz` for
-- `timestamp`). What only Bullwark needs stands in the schema `bullwark`. On Supabase `auth` and its
-- roles exist already; elsewhere small stand-ins are made, so that the policies mean the same.

-- A role named `bullwark` would otherwise make its tables in the schema of that name.
SET LOCAL search_path = public;

CREATE SCHEMA IF NOT EXISTS bullwark;
CREATE SCHEMA IF NOT EXISTS auth;

CREATE TABLE IF NOT EXISTS auth.users (
  id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  email text
);

-- Roles belong to the whole server: another database may just be making them.
DO $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'authenticated') THEN
    CREATE ROLE authenticated NOLOGIN;
  END IF;
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'service_role') THEN
    CREATE ROLE service_role NOLOGIN BYPASSRLS;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN
  RAISE NOTICE 'roles authenticated and service_role were not created: %', SQLERRM;
END
$$;

-- The user of the request, from its verified token.
DO $$
BEGIN
  IF to_regprocedure('auth.uid()') IS NULL THEN
    EXECUTE $f$
      CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $body$
        SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
      $body$
    $f$;
  END IF;
END
$$;

-- A time-ordered id (RFC 9562, version 7) for rows that are made in SQL: 48 bits of milliseconds,
-- then random bits with version and variant set over those of a random (version 4) uuid.
CREATE FUNCTION bullwark.uuid_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT encode(
    set_bit(set_bit(
      overlay(uuid_send(gen_random_uuid())
        PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6),
      52, 1), 53, 1),
    'hex')::uuid
$$;

-- A tenant.
CREATE TABLE workspaces (
  id         uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  name       text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT workspaces_name_not_empty CHECK (name <> '')
);

-- Who belongs to a tenant, and as what.
CREATE TABLE workspace_members (
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  user_id      uuid NOT NULL REFERENCES auth.users (id) ON DELETE CASCADE,
  role         text NOT NULL DEFAULT 'member',
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (workspace_id, user_id),
  CONSTRAINT workspace_members_role CHECK (role IN ('owner', 'admin', 'member'))
);
CREATE INDEX workspace_members_user ON workspace_members (user_id);

-- One row per job, written before anything else knows of it.
--
-- `attempts` counts failures, as the specification says. `attempt` is the number of the newest
-- start (BullMQ's `ats`): it only grows, every write of an attempt names it, and a write with an
-- older number finds no row. A row is updated once or twice in its life, often all rows of a page
-- by one transaction, which can not reuse the space of the versions that it replaces itself:
-- `fillfactor` leaves room for a second version of every row, and no index names a column that
-- changes, so that updates stay heap-only. `docs/record.md` has the plans and the measured cost.
CREATE TABLE jobs (
  id                  uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id        uuid REFERENCES workspaces (id) ON DELETE CASCADE,
  job_type            varchar(100) NOT NULL,
  job_queue           varchar(50) NOT NULL DEFAULT 'default',
  payload             jsonb NOT NULL,
  status              varchar(20) NOT NULL DEFAULT 'pending',
  priority            int NOT NULL DEFAULT 0,
  attempts            int NOT NULL DEFAULT 0,
  max_attempts        int NOT NULL DEFAULT 5,
  progress            jsonb DEFAULT '{}',
  result              jsonb,
  error_message       text,
  error_stack         text,
  created_at          timestamptz NOT NULL DEFAULT now(),
  scheduled_for       timestamptz,
  started_at          timestamptz,
  completed_at        timestamptz,
  failed_at           timestamptz,
  next_retry_at       timestamptz,
  retry_delay_seconds int NOT NULL DEFAULT 60,
  worker_id           varchar(100),
  worker_heartbeat_at timestamptz,
  created_by          uuid REFERENCES auth.users (id),
  -- the number of the newest start; the fence
  attempt             int NOT NULL DEFAULT 0,
  -- starts in a row that ended with a lost lease
  lease_losses        int NOT NULL DEFAULT 0,
  -- where a handler goes on after a crash
  checkpoint          jsonb,
  -- replaces the specification's formula
  backoff             jsonb,
  timeout_seconds     int,
  -- the id in Redis of a job that a foreign client added; else it is `id`
  redis_id            text,
  CONSTRAINT jobs_status CHECK (status IN
    ('pending', 'processing', 'completed', 'failed', 'cancelled', 'dead_letter')),
  CONSTRAINT jobs_attempts CHECK (attempts >= 0 AND attempts <= max_attempts),
  CONSTRAINT jobs_priority CHECK (priority >= 0 AND priority <= 10)
) WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_analyze_scale_factor = 0.02);
CREATE INDEX jobs_workspace ON jobs (workspace_id, id DESC);

-- Values of `payload` and `result` are stored as they come: compressing them costs more CPU than
-- everything else about a small row.
ALTER TABLE jobs ALTER COLUMN payload SET STORAGE EXTERNAL, ALTER COLUMN result SET STORAGE EXTERNAL;

-- What a job, or the machinery around it, had to say.
CREATE TABLE job_logs (
  id         uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  job_id     uuid REFERENCES jobs (id) ON DELETE CASCADE,
  log_level  varchar(20) NOT NULL,
  message    text NOT NULL,
  metadata   jsonb,
  created_at timestamptz DEFAULT now(),
  CONSTRAINT job_logs_level CHECK (log_level IN ('debug', 'info', 'warn', 'error'))
);
CREATE INDEX job_logs_job ON job_logs (job_id, created_at DESC);

-- Every attempt that did not complete: the retry history of a job.
CREATE TABLE job_failures (
  job_id        uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  attempt       int NOT NULL,
  outcome       text NOT NULL,
  error_message text,
  error_stack   text,
  worker_id     text,
  started_at    timestamptz,
  ended_at      timestamptz NOT NULL DEFAULT now(),
  next_retry_at timestamptz,
  PRIMARY KEY (job_id, attempt),
  CONSTRAINT job_failures_outcome CHECK (outcome IN ('failed', 'dead_letter', 'lease_lost'))
);

-- The dead letter queue: one narrow row per dead job, so that listing and counting it never reads
-- `jobs`, and `jobs` needs no index on its status.
CREATE TABLE bullwark.dead_letters (
  job_id       uuid PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
  workspace_id uuid,
  job_type     text NOT NULL,
  job_queue    text NOT NULL,
  died_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX dead_letters_workspace ON bullwark.dead_letters (workspace_id, job_id DESC);

-- The same key of the same workspace gives the same job back. `fingerprint` is a hash of the
-- request: the same key with another request is an error of the caller.
CREATE TABLE bullwark.idempotency_keys (
  workspace_id uuid NOT NULL,
  key          text NOT NULL,
  job_id       uuid NOT NULL,
  fingerprint  bytea NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (workspace_id, key)
);

-- Jobs that a transaction enqueued, cancelled or retried and that Redis has not been told of. The
-- relay tells it after the commit and deletes the row.
CREATE TABLE bullwark.outbox (
  seq    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  job_id uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE
);
CREATE INDEX outbox_job ON bullwark.outbox (job_id);

-- How far the passes over `jobs` have come (ids are time-ordered). Every row up to `delivered` has
-- been seen in Redis; every open row up to `sealed` stands in `stragglers`. So "all open jobs" are
-- the rows after `sealed` and the stragglers, however many finished rows there are.
CREATE TABLE bullwark.watermarks (
  name   text PRIMARY KEY,
  job_id uuid NOT NULL
);
INSERT INTO bullwark.watermarks VALUES
  ('delivered', '00000000-0000-0000-0000-000000000000'),
  ('sealed', '00000000-0000-0000-0000-000000000000');

CREATE TABLE bullwark.stragglers (
  job_id uuid PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE
);

-- The known job types, so that SQL can refuse unknown ones. Built-in types are written here by each
-- process at its start; declared ones (served by foreign or forwarded workers) by a person.
CREATE TABLE bullwark.job_types (
  name       varchar(100) PRIMARY KEY,
  schema     jsonb NOT NULL DEFAULT 'true',
  builtin    boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- Keys of the HTTP API. Only the hash is stored.
CREATE TABLE bullwark.api_keys (
  id           uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  name         text NOT NULL,
  hash         bytea NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  revoked_at   timestamptz,
  CONSTRAINT api_keys_hash_unique UNIQUE (hash)
);

-- Enqueues a job inside the caller's own transaction: the job exists if and only if that commits.
-- A relay delivers it within a second after the commit.
CREATE FUNCTION bullwark.enqueue(
  job_type            text,
  payload             jsonb DEFAULT '{}',
  job_queue           text DEFAULT 'default',
  priority            int DEFAULT 0,
  scheduled_for       timestamptz DEFAULT NULL,
  workspace_id        uuid DEFAULT NULL,
  max_attempts        int DEFAULT 5,
  retry_delay_seconds int DEFAULT 60
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
  new_id uuid;
  known  text;
BEGIN
  IF NOT EXISTS (SELECT 1 FROM bullwark.job_types t WHERE t.name = enqueue.job_type) THEN
    SELECT coalesce(string_agg(t.name, ', ' ORDER BY t.name), 'none') INTO known
      FROM bullwark.job_types t;
    RAISE EXCEPTION 'unknown job type "%"', enqueue.job_type
      USING ERRCODE = 'invalid_parameter_value', HINT = 'known types: ' || known;
  END IF;
  IF enqueue.job_queue = '' OR enqueue.job_queue LIKE '%:%' THEN
    RAISE EXCEPTION 'queue name "%" is empty or contains ":"', enqueue.job_queue
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF octet_length(enqueue.payload::text) > 1048576 THEN
    RAISE EXCEPTION 'payload has more than 1048576 bytes'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO public.jobs (workspace_id, job_type, job_queue, payload, priority, scheduled_for,
                           max_attempts, retry_delay_seconds)
  VALUES (enqueue.workspace_id, enqueue.job_type, enqueue.job_queue, enqueue.payload,
          enqueue.priority, enqueue.scheduled_for, enqueue.max_attempts,
          enqueue.retry_delay_seconds)
  RETURNING id INTO new_id;
  INSERT INTO bullwark.outbox (job_id) VALUES (new_id);
  RETURN new_id;
END
$$;

-- Row level security, as the specification gives it. Bullwark's own connection owns the tables and
-- is not bound by it; requests of users run as `authenticated`.
ALTER TABLE jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view jobs in their workspace" ON jobs FOR SELECT
  USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "Users can create jobs in their workspace" ON jobs FOR INSERT
  WITH CHECK (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
-- The specification writes USING (true) and means its service key: said here as the role.
CREATE POLICY "System can update job status" ON jobs FOR UPDATE TO service_role USING (true);

ALTER TABLE job_logs ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view logs for accessible jobs" ON job_logs FOR SELECT
  USING (EXISTS (
    SELECT 1 FROM jobs
    JOIN workspace_members wm ON wm.workspace_id = jobs.workspace_id
    WHERE jobs.id = job_logs.job_id AND wm.user_id = auth.uid()));

ALTER TABLE job_failures ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view failures of accessible jobs" ON job_failures FOR SELECT
  USING (EXISTS (
    SELECT 1 FROM jobs
    JOIN workspace_members wm ON wm.workspace_id = jobs.workspace_id
    WHERE jobs.id = job_failures.job_id AND wm.user_id = auth.uid()));

-- Who may see a workspace is no secret to its members, and nobody else's business.
ALTER TABLE workspaces ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view their workspaces" ON workspaces FOR SELECT
  USING (id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
ALTER TABLE workspace_members ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view their memberships" ON workspace_members FOR SELECT
  USING (user_id = auth.uid());

-- Supabase grants this by default; elsewhere the policies alone would let nobody in.
DO $$
BEGIN
  IF NOT has_schema_privilege('authenticated', 'auth', 'USAGE') THEN
    GRANT USAGE ON SCHEMA auth TO authenticated, service_role;
  END IF;
END
$$;
GRANT USAGE ON SCHEMA public TO authenticated, service_role;
GRANT SELECT, INSERT ON jobs TO authenticated;
GRANT SELECT ON job_logs, job_failures, workspaces, workspace_members TO authenticated;
GRANT ALL ON jobs, job_logs, job_failures, workspaces, workspace_members TO service_role;
GRANT USAGE ON SCHEMA bullwark TO service_role;
GRANT ALL ON ALL TABLES IN SCHEMA bullwark TO service_role;
