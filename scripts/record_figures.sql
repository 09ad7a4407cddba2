-- A million jobs for record_figures.sh: a hundred workspaces of which one has 30 %, ten job types,
-- 97 % completed; open jobs among the newest, and a few old stragglers.

CREATE SEQUENCE inserted;
CREATE SEQUENCE completed;

-- The id of the nth job: time-ordered, one millisecond apart.
CREATE FUNCTION figures_id(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT ('0190' || lpad(to_hex(n), 8, '0') || '7' || substr(md5(n::text), 1, 3)
    || '8' || substr(md5(n::text), 4, 15))::uuid
$$;
CREATE FUNCTION figures_workspace(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT ('00000000-0000-7000-8000-0000000f' || lpad(n::text, 4, '0'))::uuid
$$;

INSERT INTO workspaces (id, name) SELECT figures_workspace(n), 'w' || n
FROM generate_series(0, 99) n;
INSERT INTO auth.users (id) SELECT figures_workspace(n) FROM generate_series(0, 499) n;

INSERT INTO jobs (id, workspace_id, job_type, job_queue, payload, status, priority, attempts,
  attempt, result, created_at, scheduled_for, started_at, completed_at, failed_at, next_retry_at,
  worker_id, worker_heartbeat_at, created_by)
SELECT figures_id(n), figures_workspace(CASE WHEN n % 10 < 3 THEN 0 ELSE (n % 99 + 1)::int END),
  -- One type in ten thousand is rare.
  CASE WHEN n % 10000 = 7 THEN 'generate_report'
       ELSE (ARRAY['import_csv', 'export_csv', 'export_data', 'enrich_account', 'enrich_contact',
                   'sync_crm', 'send_email_batch', 'cleanup_data', 'http_call', 'noop'])[n % 10 + 1]
  END,
  (ARRAY['default', 'high_priority', 'low_priority'])[n % 3 + 1],
  '{"account_id": "01a2093a-73ad-725c-a430-11ad2f710c92", "fields": ["name", "size"]}',
  s.status, n % 11, 0, CASE s.status WHEN 'pending' THEN 0 ELSE 1 END,
  CASE s.status WHEN 'completed' THEN '{"ok": true}'::jsonb END,
  t.at, CASE WHEN n % 50 = 3 THEN t.at + interval '1 hour' END,
  CASE WHEN s.status <> 'pending' THEN t.at END,
  CASE WHEN s.status IN ('completed', 'cancelled') THEN t.at END,
  CASE WHEN s.status IN ('failed', 'dead_letter') THEN t.at END,
  CASE s.status WHEN 'failed' THEN t.at + interval '1 hour' END,
  'host-1-abcdef', CASE s.status WHEN 'processing' THEN now() - (n % 600) * interval '1 second' END,
  figures_workspace((n * 7 % 500)::int)
FROM generate_series(1, 1000000) n
CROSS JOIN LATERAL (SELECT now() - (1000001 - n) * interval '80 milliseconds' AS at) t
CROSS JOIN LATERAL (SELECT CASE
  WHEN n > 995000 THEN (ARRAY['pending', 'processing', 'failed', 'completed'])[n % 4 + 1]
  WHEN n % 1000 = 1 THEN 'failed'
  WHEN n % 200 = 2 THEN 'dead_letter'
  WHEN n % 2000 = 5 THEN 'cancelled'
  ELSE 'completed' END AS status) s;

INSERT INTO bullwark.dead_letters (job_id, workspace_id, job_type, job_queue)
SELECT id, workspace_id, job_type, job_queue FROM jobs WHERE status = 'dead_letter';
UPDATE bullwark.watermarks SET job_id = figures_id(995000);
INSERT INTO bullwark.stragglers
SELECT id FROM jobs
WHERE id <= figures_id(995000) AND status IN ('pending', 'processing', 'failed');
VACUUM ANALYZE;
