-- contacts: insert new rows. What becomes of one whose key exists already, and what is returned, is
-- added behind it (`IfTaken`).
--
-- $1 workspace, $2 source, then one array per column, ids first, account ids second.
INSERT INTO contacts (workspace_id, source, id, account_id,
  external_id, email, first_name, last_name, title, phone, linkedin_url, company, country,
  city, custom)
SELECT $1, $2, n.id, n.account_id,
  n.external_id, n.email, n.first_name, n.last_name, n.title, n.phone, n.linkedin_url,
  n.company, n.country, n.city, COALESCE(n.custom, '{}')
FROM unnest(
  $3::uuid[], $4::uuid[],
  $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[],
  $12::text[], $13::text[], $14::text[], $15::jsonb[]
) AS n (id, account_id,
  external_id, email, first_name, last_name, title, phone, linkedin_url, company, country,
  city, custom)
