-- The children of jobs that BullMQ clients own.
--
-- A child names its parent by its key in Redis, and the parent names nobody. When Redis has lost a
-- parent, this table finds who it waits for. Only a job with a parent has a row here: plain jobs,
-- and the flows that Bullwark accepted itself, pay nothing for it.
CREATE TABLE bullwark.foreign_children (
  parent_key text NOT NULL,
  job_id     uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  -- longer keys fit into no index; such a child comes back, and its parent does not wait for it
  CONSTRAINT foreign_children_parent_key CHECK (octet_length(parent_key) <= 2000),
  PRIMARY KEY (parent_key, job_id)
);
CREATE INDEX foreign_children_job ON bullwark.foreign_children (job_id);

INSERT INTO bullwark.foreign_children (parent_key, job_id)
  SELECT wire ->> 'parentKey', id FROM jobs
  WHERE (wire -> 'children') IS NULL AND octet_length(wire ->> 'parentKey') <= 2000;
