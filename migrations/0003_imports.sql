-- Imports: what became of a file, as a whole and row by row.

SET LOCAL search_path = public;

-- One run of an import; `id` is the job's. The counters grow in the transaction that writes the
-- rows which they count, so they are exact after every crash. Where the run goes on is in
-- `jobs.checkpoint`.
CREATE TABLE imports (
  id             uuid PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
  workspace_id   uuid REFERENCES workspaces (id) ON DELETE CASCADE,
  entity_type    text NOT NULL,
  file_name      text,
  -- of the bytes as they came, so that the same file can be recognised
  sha256         text NOT NULL,
  bytes          bigint NOT NULL,
  status         text NOT NULL DEFAULT 'running',
  dry_run        boolean NOT NULL DEFAULT false,
  total          bigint NOT NULL DEFAULT 0,
  processed      bigint NOT NULL DEFAULT 0,
  inserted       bigint NOT NULL DEFAULT 0,
  updated        bigint NOT NULL DEFAULT 0,
  unchanged      bigint NOT NULL DEFAULT 0,
  skipped        bigint NOT NULL DEFAULT 0,
  failed         bigint NOT NULL DEFAULT 0,
  -- rows per stable error code
  by_code        jsonb NOT NULL DEFAULT '{}',
  encoding       text NOT NULL,
  delimiter      text NOT NULL,
  -- header → field, and why
  header_mapping jsonb NOT NULL DEFAULT '[]',
  warnings       jsonb NOT NULL DEFAULT '{}',
  -- name of the error report below the data directory; NULL when no row was rejected
  report_path    text,
  created_at     timestamptz NOT NULL DEFAULT now(),
  finished_at    timestamptz,
  CONSTRAINT imports_entity_type CHECK (entity_type IN ('accounts', 'contacts')),
  CONSTRAINT imports_status CHECK (status IN
    ('running', 'completed', 'completed_with_errors', 'failed', 'cancelled')),
  CONSTRAINT imports_finished CHECK ((status = 'running') = (finished_at IS NULL)),
  CONSTRAINT imports_counts CHECK (processed = inserted + updated + unchanged + skipped + failed)
) WITH (fillfactor = 50);
CREATE INDEX imports_workspace ON imports (workspace_id, id DESC);

-- The fate of every row of every import. The primary key makes a repeated chunk a no-op; the key of
-- the row (a hash of external id, domain, e-mail …) finds duplicates inside the file exactly,
-- without keeping them in memory and across crashes. `raw` is kept of rejected rows only, as the
-- bytes of the file, for the error report. There is no foreign key: it would cost a look-up per
-- row, so a trigger cleans up.
CREATE TABLE import_rows (
  import_id   uuid NOT NULL,
  -- number of the data record, and the physical line where it starts
  row_no      bigint NOT NULL,
  line_no     bigint NOT NULL,
  outcome     text NOT NULL,
  -- hash of the import and the keys of the row
  row_key     uuid,
  -- the account or contact; several rows may mean the same one
  entity_id   uuid,
  code        text,
  column_name text,
  message     text,
  suggestion  text,
  raw         bytea,
  raw_columns int,
  PRIMARY KEY (import_id, row_no),
  CONSTRAINT import_rows_outcome CHECK (outcome IN
    ('inserted', 'updated', 'unchanged', 'skipped', 'failed')),
  CONSTRAINT import_rows_failed_has_code CHECK (outcome <> 'failed' OR code IS NOT NULL)
);
CREATE UNIQUE INDEX import_rows_key_unique ON import_rows (row_key)
  WHERE row_key IS NOT NULL;

CREATE FUNCTION bullwark.delete_import_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM public.import_rows WHERE import_id = OLD.id;
  RETURN NULL;
END
$$;
CREATE TRIGGER imports_delete_rows AFTER DELETE ON imports
  FOR EACH ROW EXECUTE FUNCTION bullwark.delete_import_rows();

ALTER TABLE imports ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Members can view imports of their workspace" ON imports FOR SELECT
  USING (workspace_id IN (
    SELECT workspace_id FROM workspace_members WHERE user_id = auth.uid()));

ALTER TABLE import_rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Members can view rows of accessible imports" ON import_rows FOR SELECT
  USING (EXISTS (
    SELECT 1 FROM imports
    JOIN workspace_members wm ON wm.workspace_id = imports.workspace_id
    WHERE imports.id = import_rows.import_id AND wm.user_id = auth.uid()));
