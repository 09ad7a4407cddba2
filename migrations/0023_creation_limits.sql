-- How many jobs a workspace may create in an hour over HTTP.
--
-- The limit of a workspace is its own number, else its plan's, else the server's setting, else none.
-- A plan without a number has no limit, whatever the setting says.
SET LOCAL search_path = public;

CREATE TABLE bullwark.plans (
  name          text PRIMARY KEY,
  jobs_per_hour int,
  CONSTRAINT plans_name CHECK (name <> '' AND length(name) <= 100),
  CONSTRAINT plans_jobs_per_hour CHECK (jobs_per_hour >= 0)
);
INSERT INTO bullwark.plans (name, jobs_per_hour) VALUES ('free', 100), ('unlimited', NULL);

ALTER TABLE workspaces
  ADD COLUMN plan text REFERENCES bullwark.plans (name) ON UPDATE CASCADE,
  ADD COLUMN jobs_per_hour int CONSTRAINT workspaces_jobs_per_hour CHECK (jobs_per_hour >= 0);

-- What was created in the last hour, per minute: one short row per workspace that has a limit. Its
-- lock is what makes several servers count as one.
CREATE TABLE bullwark.creations (
  workspace_id uuid PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
  -- minutes since 1970, ascending, and how much was taken in each
  minutes      bigint[] NOT NULL DEFAULT '{}',
  counts       bigint[] NOT NULL DEFAULT '{}'
) WITH (fillfactor = 50);

-- Takes up to `wanted` of what the quota has left, or nothing if that is less than `needed`.
--
-- What is taken in a minute counts until 60 minutes after its end, so that no hour, wherever it
-- begins, has more than the quota. `restored_in` are the seconds until something of it is free again,
-- `retry_in` those until `needed` is, if it is not now and ever will be.
CREATE FUNCTION bullwark.take_creations(
  of_workspace uuid, quota bigint, wanted bigint, needed bigint,
  OUT granted bigint, OUT used bigint, OUT restored_in int, OUT retry_in int)
LANGUAGE plpgsql AS $$
DECLARE
  kept bullwark.creations;
  seconds double precision;
  this bigint;
  room bigint;
BEGIN
  LOOP
    SELECT * INTO kept FROM bullwark.creations c WHERE c.workspace_id = of_workspace FOR UPDATE;
    EXIT WHEN FOUND;
    INSERT INTO bullwark.creations (workspace_id) VALUES (of_workspace) ON CONFLICT DO NOTHING;
  END LOOP;
  -- Not the time of the transaction: it may have waited for the row.
  seconds := extract(epoch FROM clock_timestamp());
  this := floor(seconds / 60);
  -- A minute in the future is of a server whose clock was wrong: it counts as this one.
  SELECT coalesce(array_agg(k.m ORDER BY k.m), '{}'), coalesce(array_agg(k.c ORDER BY k.m), '{}'),
    coalesce(sum(k.c), 0)
  INTO kept.minutes, kept.counts, used
  FROM (SELECT least(u.m, this) AS m, sum(u.c)::bigint AS c
        FROM unnest(kept.minutes, kept.counts) AS u (m, c)
        WHERE u.c > 0 AND u.m > this - 61
        GROUP BY 1) AS k;
  room := greatest(quota - used, 0);
  granted := CASE WHEN room >= needed THEN least(room, wanted) ELSE 0 END;
  IF granted > 0 THEN
    IF kept.minutes[cardinality(kept.minutes)] = this THEN
      kept.counts[cardinality(kept.counts)] := kept.counts[cardinality(kept.counts)] + granted;
    ELSE
      kept.minutes := kept.minutes || this;
      kept.counts := kept.counts || granted;
    END IF;
    used := used + granted;
    UPDATE bullwark.creations c SET minutes = kept.minutes, counts = kept.counts
    WHERE c.workspace_id = of_workspace;
  ELSIF room < needed THEN
    SELECT ceil((min(s.m) + 61) * 60 - seconds) INTO retry_in
    FROM (SELECT u.m, sum(u.c) OVER (ORDER BY u.m) AS freed
          FROM unnest(kept.minutes, kept.counts) AS u (m, c)) AS s
    WHERE used - s.freed + needed <= quota;
  END IF;
  restored_in := ceil((kept.minutes[1] + 61) * 60 - seconds);
END
$$;

GRANT ALL ON bullwark.plans, bullwark.creations TO service_role;
