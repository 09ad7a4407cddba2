-- accounts: insert new rows. What becomes of one whose key exists already, and what is returned, is
-- added behind it (`IfTaken`).
--
-- $1 workspace, $2 source, then one array per column, ids first.
INSERT INTO accounts (workspace_id, source, id,
  external_id, name, domain, website, industry, employee_count, annual_revenue, country,
  city, phone, linkedin_url, description, technologies, custom)
SELECT $1, $2, n.id,
  n.external_id, n.name, n.domain, n.website, n.industry, n.employee_count,
  n.annual_revenue, n.country, n.city, n.phone, n.linkedin_url, n.description,
  n.technologies, COALESCE(n.custom, '{}')
FROM unnest(
  $3::uuid[],
  $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::int[], $10::bigint[],
  $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::jsonb[],
  $17::jsonb[]
) AS n (id,
  external_id, name, domain, website, industry, employee_count, annual_revenue, country,
  city, phone, linkedin_url, description, technologies, custom)
