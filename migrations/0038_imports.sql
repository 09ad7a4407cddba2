-- Imports: which template their columns were mapped by, and what became of undoing them.
SET LOCAL search_path = public;

-- As it was when the import began: a later attempt goes on with it, whatever became of it since.
ALTER TABLE imports ADD COLUMN template jsonb;
-- The kinds of the custom fields that it fills, by name; for the same reason.
ALTER TABLE imports ADD COLUMN custom_fields jsonb NOT NULL DEFAULT '{}';

-- An admin asked for it; what the jobs of `undo_import` may do, they may do by this alone.
ALTER TABLE imports ADD COLUMN undo_asked_at timestamptz;
-- the job that does it, and the last row that it has dealt with
ALTER TABLE imports ADD COLUMN undo_job_id uuid;
ALTER TABLE imports ADD COLUMN undo_row bigint NOT NULL DEFAULT 0;
ALTER TABLE imports ADD COLUMN undo_removed bigint NOT NULL DEFAULT 0;
-- those that stay: changed since by somebody, or needed by a contact
ALTER TABLE imports ADD COLUMN undo_changed bigint NOT NULL DEFAULT 0;
ALTER TABLE imports ADD COLUMN undo_in_use bigint NOT NULL DEFAULT 0;
ALTER TABLE imports ADD COLUMN undone_at timestamptz;
