-- The lineage of new rows in two thirds of the time: what is left out of them is said in the
-- statement itself. A function of SQL that has a sub-select of its own is called for each row, and
-- that call took more than what it does; it is left for the rare rows that need it.
SET LOCAL search_path = public;

CREATE OR REPLACE FUNCTION bullwark.note_inserts() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO bullwark.data_changes (workspace_id, entity_type, entity_id, action, job_id, user_id,
    after)
  SELECT n.workspace_id, TG_TABLE_NAME, n.id, 'insert', w.job_id, w.user_id,
    -- As in `said`: the server's own function leaves out what is null on all levels.
    CASE WHEN n.content @? '$.**{2 to last} ? (@ == null)' THEN bullwark.said(n.content)
         ELSE jsonb_strip_nulls(n.content) END
  -- OFFSET 0: or the content is made for each time that it is named.
  FROM (SELECT r.workspace_id, r.id, bullwark.content(to_jsonb(r)) AS content
        FROM new_rows r OFFSET 0) n
  CROSS JOIN bullwark.changes_by() w;
  RETURN NULL;
END $$;
