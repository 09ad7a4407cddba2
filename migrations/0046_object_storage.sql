-- Where the file of an export is among the objects of a bucket.
SET LOCAL search_path = public;

-- Without a default, so no row is looked at. None: the file is in the data directory. Programs of
-- an older version know nothing of it, and find no file of those that have one.
ALTER TABLE exports ADD COLUMN object_key text
  CONSTRAINT exports_object_key CHECK (char_length(object_key) BETWEEN 1 AND 200);
