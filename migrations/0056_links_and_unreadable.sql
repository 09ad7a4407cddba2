-- What is known of a recipient between two tries, and of an answer that could not be read. No row
-- is rewritten: columns with constants only.
SET LOCAL search_path = public;

ALTER TABLE bullwark.file_deliveries
  -- how often the server of mail put it off
  ADD COLUMN tries     int NOT NULL DEFAULT 0,
  -- the link that it was claimed with: of its hash, as `download_links` has it. Gone with the link,
  -- when it certainly reached nobody
  ADD COLUMN link_hash bytea;

-- When an answer came that could not be read. It was paid for, so nobody asks before `busy_until`;
-- a worker that knows nothing of this column waits until then, too.
ALTER TABLE bullwark.enrichment_lookups ADD COLUMN unreadable_at timestamptz;
