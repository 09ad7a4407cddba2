-- What people need who run the thing: dead letters by what killed them, whose a schedule is, and
-- what the passes over both stores found.
SET LOCAL search_path = public;

-- An error without what differs each time: two that read the same here have one cause.
--
-- Quoted text, addresses, identifiers and numbers are replaced; a status behind `http`, `status` or
-- `code` says something and stays. Only the beginning of a message is looked at.
CREATE FUNCTION bullwark.error_pattern(message text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT left(btrim(
    regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(
    regexp_replace(regexp_replace(regexp_replace(
      left(coalesce(message, ''), 2000),
      '"[^"]*"|`[^`]*`|(?<![[:alnum:]])''[^'']*''(?![[:alnum:]])', '<text>', 'g'),
      '\m[a-z][a-z0-9+.-]*://[^[:space:]<>,;)]+', '<url>', 'gi'),
      '[[:alnum:]._%+-]+@[[:alnum:]-]+(\.[[:alnum:]-]+)+', '<address>', 'g'),
      '\m[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\M', '<id>', 'gi'),
      '\m[0-9]{1,3}(\.[0-9]{1,3}){3}(:[0-9]+)?\M', '<address>', 'g'),
      '\m(0x[0-9a-f]+|(?=[a-f]*[0-9])[0-9a-f]{12,})\M', '<id>', 'gi'),
      '(?<![0-9])([0-9]{1,2}|[0-9]{4,})(?![0-9])', '<n>', 'g'),
      '(?<![0-9])(?<!\m(http|status|code)[ :=]{1,3})[0-9]{3}(?![0-9])', '<n>', 'gi'),
      '[[:space:]]+', ' ', 'g')), 500)
$$;

CREATE FUNCTION bullwark.error_fingerprint(job_type text, message text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT md5(job_type || E'\n' || bullwark.error_pattern(message))::uuid
$$;

-- Written with the dead letter, so that grouping them reads neither `jobs` nor any message.
-- Zeros: by a process of an older version, which may still be running.
ALTER TABLE bullwark.dead_letters
  ADD COLUMN fingerprint uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';
UPDATE bullwark.dead_letters d
  SET fingerprint = bullwark.error_fingerprint(d.job_type, j.error_message)
  FROM jobs j WHERE j.id = d.job_id;
CREATE INDEX dead_letters_fingerprint
  ON bullwark.dead_letters (workspace_id, fingerprint, job_id DESC);

-- A workspace's schedules have its id in their names, behind the last `@`: no two workspaces can
-- have the same one, and both stores know whose it is, whatever a client makes of the rest.
ALTER TABLE bullwark.schedules ADD COLUMN workspace_id uuid GENERATED ALWAYS AS (
  CASE WHEN schedule_id ~ '@[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
       THEN right(schedule_id, 36)::uuid END) STORED;
CREATE INDEX schedules_workspace
  ON bullwark.schedules (prefix, workspace_id, job_queue, schedule_id);
GRANT SELECT ON bullwark.schedules TO authenticated, bullwark_tenant;
ALTER TABLE bullwark.schedules ENABLE ROW LEVEL SECURITY;
CREATE POLICY members ON bullwark.schedules FOR SELECT TO authenticated
  USING (workspace_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));
CREATE POLICY tenant ON bullwark.schedules FOR SELECT TO bullwark_tenant
  USING (workspace_id = bullwark.tenant());

-- The last pass of each kind over a queue, or over all (''), and what it repaired. Written by
-- whichever process made it, so that every server can tell.
CREATE TABLE bullwark.passes (
  prefix         text NOT NULL,
  kind           text NOT NULL,
  job_queue      text NOT NULL,
  ended_at       timestamptz NOT NULL DEFAULT now(),
  took_ms        bigint NOT NULL,
  -- of the last pass: open jobs that Redis lacked; jobs and outcomes that only Redis knew; jobs
  -- that were over and waited there; settings and schedules that differed
  added          bigint NOT NULL DEFAULT 0,
  copied         bigint NOT NULL DEFAULT 0,
  ended          bigint NOT NULL DEFAULT 0,
  settings       bigint NOT NULL DEFAULT 0,
  -- of all passes
  repaired_total bigint NOT NULL DEFAULT 0,
  repaired_at    timestamptz,
  PRIMARY KEY (prefix, kind, job_queue),
  CONSTRAINT passes_kind CHECK (kind IN ('scan', 'sweep', 'queues', 'rebuild'))
) WITH (fillfactor = 50);
GRANT ALL ON bullwark.passes TO service_role;
