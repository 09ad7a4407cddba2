-- What a workspace's lists and counts cost is its own: they do not read the backlog of the others.
--
-- What is known of rows that are there already is filled in by upkeep, in batches: nothing here
-- reads `jobs`, so the tables are held for a moment only.
SET LOCAL search_path = public;

-- Whose an open job is, `workspace_id` in `jobs`: under another name, since lists of older versions
-- join the two and say `workspace_id` alone. None: nobody has said it yet. That goes for rows that
-- are older than this column and for those of processes of an older version, which may still be
-- running: readers look among them as well, and upkeep says it soon.
ALTER TABLE bullwark.stragglers ADD COLUMN owner_id uuid;
CREATE INDEX stragglers_owner ON bullwark.stragglers (owner_id, job_id)
  WHERE owner_id IS NOT NULL;
CREATE INDEX stragglers_unsaid ON bullwark.stragglers (job_id) WHERE owner_id IS NULL;

-- The owner of a job that belongs to no workspace, where none means that it is not known.
CREATE FUNCTION bullwark.nobody() RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT '00000000-0000-0000-0000-000000000000'::uuid
$$;

-- Who may see a job is asked of `jobs` no more, but for rows of which nobody has said whose they
-- are.
DROP POLICY readers ON bullwark.stragglers;
CREATE POLICY members ON bullwark.stragglers FOR SELECT TO authenticated
  USING (owner_id IN (SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid())
    OR (owner_id IS NULL AND EXISTS (SELECT FROM jobs WHERE jobs.id = job_id)));
CREATE POLICY tenant ON bullwark.stragglers FOR SELECT TO bullwark_tenant
  USING (owner_id = bullwark.tenant()
    OR (owner_id IS NULL AND EXISTS (SELECT FROM jobs WHERE jobs.id = job_id)));

-- An action that something keeps from going on, for how many tries in a row, and which of its jobs
-- could not be changed, the first of them.
ALTER TABLE bullwark.actions
  ADD COLUMN tries int NOT NULL DEFAULT 0,
  ADD COLUMN failures jsonb NOT NULL DEFAULT '[]';

-- Dead letters of which the cause is not known, by a process of an older version: upkeep finds it.
CREATE INDEX dead_letters_unsaid ON bullwark.dead_letters (workspace_id, job_id)
  WHERE fingerprint = '00000000-0000-0000-0000-000000000000';

-- What is given back of an allowance goes to the minute that it was taken from, so whoever takes is
-- told the minute. Under another name: processes of an older version know the columns of the one.
CREATE FUNCTION bullwark.take_creations_in(
  of_workspace uuid, quota bigint, wanted bigint, needed bigint,
  OUT granted bigint, OUT used bigint, OUT restored_in int, OUT retry_in int, OUT minute bigint)
LANGUAGE plpgsql AS $$
BEGIN
  SELECT t.granted, t.used, t.restored_in, t.retry_in INTO granted, used, restored_in, retry_in
  FROM bullwark.take_creations(of_workspace, quota, wanted, needed) AS t;
  -- It holds the row, and has put it last.
  SELECT c.minutes[cardinality(c.minutes)] INTO minute
  FROM bullwark.creations c WHERE c.workspace_id = of_workspace AND granted > 0;
END
$$;

-- A payload as those are shown it who may not see secrets, so that they can search what they see
-- and nothing else. `secrets` are patterns for the names of members, in lower case and without `_`,
-- `-` and blanks; the server hides them by the same rule (`src/http/redact.rs`). What is nested too
-- deeply to look at is hidden as a whole.
CREATE FUNCTION bullwark.redacted(value jsonb, secrets text[], depth int DEFAULT 0) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 10000 AS $$
BEGIN
  IF jsonb_typeof(value) NOT IN ('object', 'array') THEN
    RETURN value;
  ELSIF depth >= 128 THEN
    RETURN '"[redacted]"';
  ELSIF jsonb_typeof(value) = 'array' THEN
    RETURN (
      SELECT coalesce(jsonb_agg(bullwark.redacted(e.part, secrets, depth + 1) ORDER BY e.nth), '[]')
      FROM jsonb_array_elements(redacted.value) WITH ORDINALITY AS e (part, nth));
  END IF;
  RETURN (
    SELECT coalesce(jsonb_object_agg(m.name, CASE
      WHEN jsonb_typeof(m.part) IN ('null', 'boolean') THEN m.part
      WHEN lower(translate(m.name, '_- ', '')) LIKE ANY (secrets) THEN '"[redacted]"'
      ELSE bullwark.redacted(m.part, secrets, depth + 1) END), '{}')
    FROM jsonb_each(redacted.value) AS m (name, part));
END
$$;
