-- What attempts of a job have got done, so that later ones do not do it again.
--
-- Both tables cost a job nothing that has no steps and no effects. Their rows go with the job.

SET LOCAL search_path = public;

-- The results of named steps: a retry skips a step that stands here. Written in a transaction that
-- begins with the fence, so only the newest attempt writes.
CREATE TABLE job_steps (
  job_id     uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  name       text NOT NULL,
  result     jsonb NOT NULL,
  -- the start that did it
  attempt    int NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (job_id, name),
  CONSTRAINT job_steps_name CHECK (name <> '' AND octet_length(name) <= 100)
);

-- Calls to the outside world: the intent is committed before the call, the result after it.
--
-- `intended`: sent, or about to be; nobody knows whether it took effect. `done`: its result is
-- known. `unknown`: given up, since the provider could not tell a repetition; never sent again.
-- The request is kept as a hash only: it may hold secrets.
CREATE TABLE job_effects (
  job_id          uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  key             text NOT NULL,
  -- what the provider is given, the same for every attempt
  idempotency_key text NOT NULL,
  fingerprint     bytea NOT NULL,
  state           text NOT NULL DEFAULT 'intended',
  result          jsonb,
  -- the call that the intent is for, and the start that makes it
  call_id         uuid NOT NULL,
  attempt         int NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT now(),
  ended_at        timestamptz,
  PRIMARY KEY (job_id, key),
  CONSTRAINT job_effects_key CHECK (key <> '' AND octet_length(key) <= 100),
  CONSTRAINT job_effects_state CHECK (state IN ('intended', 'done', 'unknown')),
  CONSTRAINT job_effects_result CHECK ((state = 'done') = (result IS NOT NULL)),
  CONSTRAINT job_effects_ended CHECK ((state = 'intended') = (ended_at IS NULL))
);

ALTER TABLE job_steps ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view steps of accessible jobs" ON job_steps FOR SELECT
  USING (EXISTS (
    SELECT 1 FROM jobs
    JOIN workspace_members wm ON wm.workspace_id = jobs.workspace_id
    WHERE jobs.id = job_steps.job_id AND wm.user_id = auth.uid()));

ALTER TABLE job_effects ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Users can view effects of accessible jobs" ON job_effects FOR SELECT
  USING (EXISTS (
    SELECT 1 FROM jobs
    JOIN workspace_members wm ON wm.workspace_id = jobs.workspace_id
    WHERE jobs.id = job_effects.job_id AND wm.user_id = auth.uid()));

GRANT SELECT ON job_steps, job_effects TO authenticated;
GRANT ALL ON job_steps, job_effects TO service_role;
