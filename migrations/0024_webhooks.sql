-- What receivers outside are told of jobs: who wants to hear what, what is to be told, and what was.
--
-- Whoever commits how jobs ended adds one narrow row per commit, webhook and event, in the same
-- statement: nothing is told that did not happen, and nothing is forgotten. A duty makes a job of
-- each delivery and takes the row away, in one transaction. From there on a delivery is a job like
-- any other: it is tried again, ends among the dead letters, and has a log.
SET LOCAL search_path = public;

CREATE TABLE webhooks (
  id                    uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id          uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  url                   text NOT NULL,
  description           text NOT NULL DEFAULT '',
  events                text[] NOT NULL,
  -- none: all
  job_types             text[],
  -- sealed (src/sealed.rs): nobody who reads for callers may read them
  secret                text NOT NULL,
  previous_secret       text,
  previous_secret_until timestamptz,
  is_active             boolean NOT NULL DEFAULT true,
  disabled_reason       text,
  -- since when every delivery has failed; of these failures so many have counted, and when the last
  failing_since         timestamptz,
  failures              int NOT NULL DEFAULT 0,
  failure_counted_at    timestamptz,
  -- events that were not delivered since then, because too many deliveries were waiting
  dropped               bigint NOT NULL DEFAULT 0,
  dropped_since         timestamptz,
  created_by            uuid REFERENCES auth.users (id) ON DELETE SET NULL,
  created_at            timestamptz NOT NULL DEFAULT now(),
  updated_at            timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT webhooks_url CHECK (octet_length(url) BETWEEN 1 AND 2048),
  CONSTRAINT webhooks_description CHECK (length(description) <= 500),
  CONSTRAINT webhooks_events CHECK (events <> '{}'
    AND events <@ '{job.completed,job.failed,job.dead_letter,job.cancelled}'),
  CONSTRAINT webhooks_job_types CHECK (job_types <> '{}' AND cardinality(job_types) <= 100),
  CONSTRAINT webhooks_active CHECK (NOT is_active OR disabled_reason IS NULL),
  CONSTRAINT webhooks_previous CHECK (
    (previous_secret IS NULL) = (previous_secret_until IS NULL))
);
CREATE INDEX webhooks_workspace ON webhooks (workspace_id, id);
CREATE INDEX webhooks_created_by ON webhooks (created_by);
-- What commits look at: whether there is anybody to tell, and whom.
CREATE INDEX webhooks_active ON webhooks (workspace_id) WHERE is_active;

-- Supabase may have given rights to the whole table, secrets included.
REVOKE ALL ON webhooks FROM authenticated;
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'anon') THEN
    REVOKE ALL ON webhooks FROM anon;
  END IF;
END $$;
GRANT ALL ON webhooks TO service_role;
GRANT SELECT (id, workspace_id, url, description, events, job_types, previous_secret_until,
  is_active, disabled_reason, failing_since, dropped, dropped_since, created_by,
  created_at, updated_at)
  ON webhooks TO authenticated, bullwark_tenant;
ALTER TABLE webhooks ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Members can view webhooks of their workspace" ON webhooks FOR SELECT
  TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY "A tenant sees its webhooks" ON webhooks FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

-- What is still to be told. No reference to the webhook: the commits of workers must not wait for
-- somebody who deletes one, nor fail because of it.
CREATE TABLE bullwark.webhook_events (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  webhook_id uuid NOT NULL,
  event      text NOT NULL,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- the jobs, the number of the start of each that ended, and its failures until then
  job_ids    uuid[] NOT NULL,
  starts     int[] NOT NULL,
  failures   int[] NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);
-- One webhook's are taken beside those of the others, however many there are.
CREATE INDEX webhook_events_webhook ON bullwark.webhook_events (webhook_id, id);
ALTER TABLE bullwark.webhook_events ENABLE ROW LEVEL SECURITY;

-- Deliveries of webhooks, by their jobs. It is what makes a job a delivery: nobody but Bullwark
-- writes here, so nobody else has anything signed. Rows go with their jobs, or after 30 days.
CREATE TABLE bullwark.webhook_deliveries (
  job_id       uuid PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
  webhook_id   uuid NOT NULL,
  workspace_id uuid NOT NULL,
  -- the same in every attempt and replay: receivers know by it what they had before
  message_id   text NOT NULL,
  event        text NOT NULL,
  -- the job that it tells of
  about_job_id uuid,
  replay_of    uuid,
  -- of the last attempt that was noted: its number, and what it was answered, if it was
  last_attempt int NOT NULL DEFAULT 0,
  last_status  int,
  last_ms      int,
  last_at      timestamptz,
  -- False: its job has ended. Written a little later than that.
  is_open      boolean NOT NULL DEFAULT true
) WITH (fillfactor = 70);
CREATE INDEX webhook_deliveries_webhook
  ON bullwark.webhook_deliveries (webhook_id, job_id DESC);
CREATE INDEX webhook_deliveries_open
  ON bullwark.webhook_deliveries (webhook_id, job_id) WHERE is_open;
GRANT ALL ON bullwark.webhook_events, bullwark.webhook_deliveries TO service_role;
GRANT SELECT ON bullwark.webhook_deliveries TO authenticated, bullwark_tenant;
ALTER TABLE bullwark.webhook_deliveries ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON bullwark.webhook_deliveries FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY tenant ON bullwark.webhook_deliveries FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());
