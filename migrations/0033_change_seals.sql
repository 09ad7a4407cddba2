-- Seals of the lineage: one chain of hashes per workspace, over all rows of `data_changes`.
--
-- Chaining in the statements that write would have every writer of a workspace wait for the one
-- before. So a duty seals, some seconds after the commits, whatever it sees and has not sealed: a
-- seal covers the rows whose ids it names, in the order of their ids, and the seal before. What has
-- a seal can not be changed, removed or put in between without breaking it. Whoever owns the
-- database can make all seals anew; who keeps a head elsewhere sees that, too.
SET LOCAL search_path = public;

CREATE TABLE bullwark.change_seals (
  -- of changes without a workspace: zeros
  workspace_id uuid NOT NULL,
  number       bigint NOT NULL,
  ids          int8multirange NOT NULL,
  changes      bigint NOT NULL,
  -- when the newest of them was made
  newest_at    timestamptz NOT NULL,
  -- over the hashes of the rows
  digest       bytea NOT NULL,
  -- the head of the seal before; of the first one: nothing
  previous     bytea NOT NULL,
  head         bytea NOT NULL,
  sealed_at    timestamptz NOT NULL,
  PRIMARY KEY (workspace_id, number)
);
-- Where each chain ends, and where it begins since old seals were forgotten.
CREATE TABLE bullwark.change_heads (
  workspace_id uuid PRIMARY KEY,
  number       bigint NOT NULL,
  head         bytea NOT NULL,
  -- the last seal that was forgotten, and its head
  anchor       bigint NOT NULL DEFAULT 0,
  anchor_head  bytea NOT NULL DEFAULT ''
);
-- What was forgotten because the law wanted it: the hash stays, so that the seals hold.
CREATE TABLE bullwark.forgotten_changes (
  id           bigint PRIMARY KEY,
  workspace_id uuid NOT NULL,
  hash         bytea NOT NULL,
  forgotten_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX forgotten_changes_workspace ON bullwark.forgotten_changes (workspace_id);
-- How far sealing is. Every row up to `low` is sealed or will never be; above it, the rows of
-- `above` are sealed. Rows come in the order of their commits, not of their ids: what had an id
-- when the mark was made, and has not come when all transactions of that moment have ended, was
-- rolled back.
CREATE TABLE bullwark.change_sealing (
  is_only   boolean PRIMARY KEY DEFAULT true CHECK (is_only),
  low       bigint NOT NULL DEFAULT 0,
  above     int8multirange NOT NULL DEFAULT '{}',
  mark_xmax xid8,
  mark_id   bigint
);
INSERT INTO bullwark.change_sealing DEFAULT VALUES;

-- Of one row, in a form that depends on no setting.
CREATE FUNCTION bullwark.change_hash(c bullwark.data_changes) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT sha256(convert_to(jsonb_build_array(c.id, c.workspace_id, c.entity_type, c.entity_id,
    c.action, c.job_id, c.user_id, c.before, c.after,
    (extract(epoch FROM c.created_at) * 1000000)::bigint)::text, 'UTF8'))
$$;
CREATE FUNCTION bullwark.seal_head(s bullwark.change_seals) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT sha256(convert_to(jsonb_build_array(s.workspace_id, s.number, s.ids::text, s.changes,
    (extract(epoch FROM s.newest_at) * 1000000)::bigint, encode(s.digest, 'hex'),
    encode(s.previous, 'hex'), (extract(epoch FROM s.sealed_at) * 1000000)::bigint)::text, 'UTF8'))
$$;

-- Seals up to `most` rows: how many. One at a time; whoever comes meanwhile has nothing to do.
CREATE FUNCTION bullwark.seal_changes(most int) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  state bullwark.change_sealing;
  last_id bigint;
  seen pg_snapshot;
  taken int8multirange;
  sealed bigint;
BEGIN
  SELECT * INTO state FROM bullwark.change_sealing FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN 0; END IF;
  -- In this order: a transaction that begins after the snapshot takes its ids after it, too. Each
  -- statement below sees what had ended by then.
  SELECT s.last_value - CASE WHEN s.is_called THEN 0 ELSE 1 END INTO last_id
    FROM bullwark.data_changes_id_seq s;
  seen := pg_current_snapshot();

  WITH fresh AS (
    SELECT c.id, coalesce(c.workspace_id, '00000000-0000-0000-0000-000000000000') AS workspace_id,
      c.created_at, bullwark.change_hash(c) AS hash
    FROM bullwark.data_changes c
    WHERE c.id > state.low AND NOT c.id <@ state.above ORDER BY c.id LIMIT most
  ), batches AS (
    SELECT f.workspace_id, range_agg(int8range(f.id, f.id, '[]')) AS ids, count(*) AS changes,
      max(f.created_at) AS newest_at, sha256(string_agg(f.hash, ''::bytea ORDER BY f.id)) AS digest
    FROM fresh f GROUP BY f.workspace_id
  ), seals AS (
    SELECT (b.workspace_id, coalesce(h.number, 0) + 1, b.ids, b.changes, b.newest_at,
      b.digest, coalesce(h.head, ''), ''::bytea, clock_timestamp())::bullwark.change_seals AS s
    FROM batches b LEFT JOIN bullwark.change_heads h USING (workspace_id)
  ), added AS (
    INSERT INTO bullwark.change_seals (workspace_id, number, ids, changes, newest_at, digest,
      previous, head, sealed_at)
    SELECT (s).workspace_id, (s).number, (s).ids, (s).changes, (s).newest_at, (s).digest,
      (s).previous, bullwark.seal_head(s), (s).sealed_at FROM seals
    RETURNING workspace_id, number, ids, head
  ), moved AS (
    INSERT INTO bullwark.change_heads AS h (workspace_id, number, head)
    SELECT a.workspace_id, a.number, a.head FROM added a
    ON CONFLICT (workspace_id) DO UPDATE SET number = excluded.number, head = excluded.head
  )
  SELECT coalesce(range_agg(r), '{}') INTO taken FROM added a CROSS JOIN LATERAL unnest(a.ids) r;
  SELECT coalesce(sum(upper(r) - lower(r)), 0) INTO sealed FROM unnest(taken) r;

  state.above := state.above + taken;
  IF sealed < most THEN
    IF state.mark_xmax <= pg_snapshot_xmin(seen) THEN
      state.low := greatest(state.low, state.mark_id);
      state.above := state.above * int8multirange(int8range(state.low + 1, NULL));
      state.mark_xmax := NULL;
    END IF;
    -- One of the future is of the cluster that this database was copied from.
    IF last_id > state.low
      AND (state.mark_xmax IS NULL OR state.mark_xmax > pg_snapshot_xmax(seen)) THEN
      state.mark_xmax := pg_snapshot_xmax(seen);
      state.mark_id := last_id;
    END IF;
  END IF;
  UPDATE bullwark.change_sealing SET low = state.low, above = state.above,
    mark_xmax = state.mark_xmax, mark_id = state.mark_id
  WHERE (low, above, mark_xmax, mark_id)
    IS DISTINCT FROM (state.low, state.above, state.mark_xmax, state.mark_id);
  RETURN sealed;
END $$;

-- A transaction that truncates first may have no number yet: it must have one before it takes ids.
CREATE OR REPLACE FUNCTION bullwark.note_truncation() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  PERFORM pg_current_xact_id();
  EXECUTE format('INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action,
      job_id, user_id, before)
    SELECT o.workspace_id, %L, o.id, ''delete'', w.job_id, w.user_id,
      bullwark.said(bullwark.content(to_jsonb(o)))
    FROM %I.%I o CROSS JOIN bullwark.changes_by() w',
    TG_TABLE_NAME, TG_TABLE_SCHEMA, TG_TABLE_NAME);
  RETURN NULL;
END $$;

-- Against mistakes, of the owner too, as for the changes themselves.
CREATE OR REPLACE FUNCTION bullwark.refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND current_setting('bullwark.forgets', true) = 'on' THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION '% is only ever added to', TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $$;
DO $$
DECLARE sealed text;
BEGIN
  FOREACH sealed IN ARRAY '{change_seals,forgotten_changes}'::text[] LOOP
    EXECUTE format('CREATE TRIGGER refuse_rewriting BEFORE UPDATE OR DELETE ON bullwark.%I
      FOR EACH ROW EXECUTE FUNCTION bullwark.refuse_rewriting()', sealed);
    EXECUTE format('CREATE TRIGGER refuse_truncation BEFORE TRUNCATE ON bullwark.%I
      FOR EACH STATEMENT EXECUTE FUNCTION bullwark.refuse_rewriting()', sealed);
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION bullwark.forget_changes() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET bullwark.forgets = 'on' AS $$
BEGIN
  DELETE FROM bullwark.data_changes WHERE workspace_id = OLD.id;
  DELETE FROM bullwark.change_seals WHERE workspace_id = OLD.id;
  DELETE FROM bullwark.change_heads WHERE workspace_id = OLD.id;
  DELETE FROM bullwark.forgotten_changes WHERE workspace_id = OLD.id;
  RETURN NULL;
END $$;

-- What goes leaves its hash.
CREATE OR REPLACE FUNCTION bullwark.forget_record(record_id uuid) RETURNS bigint LANGUAGE sql
SET bullwark.forgets = 'on' AS $$
  WITH gone AS (
    DELETE FROM bullwark.data_changes c WHERE c.entity_id = record_id
    RETURNING c.id, c.workspace_id, bullwark.change_hash(c) AS hash
  ), kept AS (
    INSERT INTO bullwark.forgotten_changes (id, workspace_id, hash)
    SELECT id, coalesce(workspace_id, '00000000-0000-0000-0000-000000000000'), hash FROM gone
    RETURNING 1
  )
  SELECT count(*) FROM kept
$$;

-- By whole seals, the oldest of each chain first, as long as they are older than the retention: how
-- many rows, of `most` seals at most. The head of the last one stays, for the next to begin at.
DROP FUNCTION bullwark.forget_old_changes(int, int);
CREATE FUNCTION bullwark.forget_old_changes(days int, most int) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET bullwark.forgets = 'on' AS $$
DECLARE
  gone bigint := 0;
  seal bullwark.change_seals;
  removed bigint;
BEGIN
  PERFORM FROM bullwark.change_sealing FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN 0; END IF;
  FOR seal IN
    SELECT s.* FROM bullwark.change_heads h CROSS JOIN LATERAL (
      SELECT * FROM bullwark.change_seals c
      WHERE c.workspace_id = h.workspace_id AND c.number > h.anchor
      ORDER BY c.number LIMIT most) s
    WHERE s.newest_at < now() - make_interval(days => days)
    ORDER BY s.sealed_at, s.number LIMIT most
  LOOP
    DELETE FROM bullwark.data_changes c USING unnest(seal.ids) r
      WHERE c.id >= lower(r) AND c.id < upper(r)
        AND coalesce(c.workspace_id, '00000000-0000-0000-0000-000000000000') = seal.workspace_id;
    GET DIAGNOSTICS removed = ROW_COUNT;
    gone := gone + removed;
    DELETE FROM bullwark.forgotten_changes f USING unnest(seal.ids) r
      WHERE f.id >= lower(r) AND f.id < upper(r) AND f.workspace_id = seal.workspace_id;
    DELETE FROM bullwark.change_seals c
      WHERE c.workspace_id = seal.workspace_id AND c.number = seal.number;
    UPDATE bullwark.change_heads h SET anchor = seal.number, anchor_head = seal.head
      WHERE h.workspace_id = seal.workspace_id;
  END LOOP;
  RETURN gone;
END $$;

REVOKE EXECUTE ON FUNCTION bullwark.seal_changes(int), bullwark.change_hash(bullwark.data_changes),
  bullwark.seal_head(bullwark.change_seals), bullwark.forget_old_changes(int, int) FROM PUBLIC;

ALTER TABLE bullwark.change_seals ENABLE ROW LEVEL SECURITY;
ALTER TABLE bullwark.change_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE bullwark.forgotten_changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE bullwark.change_sealing ENABLE ROW LEVEL SECURITY;
