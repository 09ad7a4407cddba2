-- What people do to all jobs that match a filter.
--
-- A row says what is to be done, to which jobs, how far it has come, and what was done. It is
-- carried out in batches, newest job first: one transaction per batch changes the jobs and moves
-- `cursor`, so that whoever goes on after a crash begins behind the last job that was looked at.
-- Jobs that were made after the row (`created_at`) are not touched.
SET LOCAL search_path = public;

CREATE TABLE bullwark.actions (
  id              uuid PRIMARY KEY DEFAULT bullwark.uuid_v7(),
  workspace_id    uuid NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
  action          text NOT NULL,
  state           text NOT NULL DEFAULT 'running',
  filter          jsonb NOT NULL,
  reason          text NOT NULL,
  -- how many jobs it may match at most; none: any number
  max_jobs        bigint,
  -- how many jobs matched when it began, as far as they were counted
  expected        bigint,
  is_exact        boolean,
  -- the cancel that this one takes back
  undoes          uuid REFERENCES bullwark.actions (id) ON DELETE CASCADE,
  actor_kind      text NOT NULL,
  actor_id        uuid,
  request_id      text,
  idempotency_key text,
  fingerprint     bytea,
  -- jobs from this one on were looked at; none: nothing was yet
  cursor          uuid,
  matched         bigint NOT NULL DEFAULT 0,
  done            bigint NOT NULL DEFAULT 0,
  skipped         bigint NOT NULL DEFAULT 0,
  failed          bigint NOT NULL DEFAULT 0,
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now(),
  ended_at        timestamptz,
  undoable_until  timestamptz,
  -- rows of `cancelled_jobs` may be there
  remembers       boolean NOT NULL DEFAULT false,
  CONSTRAINT actions_action CHECK (action IN ('cancel', 'retry', 'delete', 'promote', 'undo')),
  CONSTRAINT actions_state CHECK (state IN ('running', 'done', 'stopped')),
  CONSTRAINT actions_undoes CHECK ((action = 'undo') = (undoes IS NOT NULL)),
  CONSTRAINT actions_ended CHECK ((state = 'running') = (ended_at IS NULL)),
  CONSTRAINT actions_counts CHECK (matched = done + skipped + failed),
  CONSTRAINT actions_key CHECK ((idempotency_key IS NULL) = (fingerprint IS NULL)),
  CONSTRAINT actions_key_unique UNIQUE (workspace_id, idempotency_key),
  CONSTRAINT actions_undone_once UNIQUE (undoes)
) WITH (fillfactor = 50);
CREATE INDEX actions_workspace ON bullwark.actions (workspace_id, id DESC);
CREATE INDEX actions_running ON bullwark.actions (workspace_id) WHERE state = 'running';
CREATE INDEX actions_remembering ON bullwark.actions (undoable_until) WHERE remembers;
CREATE INDEX actions_ended ON bullwark.actions (ended_at);

-- What jobs were before an action cancelled them, until it can not be undone any more. A job that
-- is cancelled since another moment than `cancelled_at` was changed by somebody else.
CREATE TABLE bullwark.cancelled_jobs (
  action_id     uuid NOT NULL REFERENCES bullwark.actions (id) ON DELETE CASCADE,
  job_id        uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  was           text NOT NULL,
  next_retry_at timestamptz,
  error_message text,
  cancelled_at  timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (action_id, job_id)
);
-- For the cascade of the jobs.
CREATE INDEX cancelled_jobs_job ON bullwark.cancelled_jobs (job_id);
GRANT ALL ON bullwark.actions, bullwark.cancelled_jobs TO service_role;

-- Seen by whoever sees the workspace; what jobs were is for upkeep alone.
GRANT SELECT ON bullwark.actions TO authenticated, bullwark_tenant;
ALTER TABLE bullwark.actions ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON bullwark.actions FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY tenant ON bullwark.actions FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());
ALTER TABLE bullwark.cancelled_jobs ENABLE ROW LEVEL SECURITY;
