#!/bin/sh
# The figures of docs/record.md: plans and times of the record's queries over a million jobs, and
# what the specification's eight indexes would cost.
#
#   scripts/record_figures.sh postgres://user@host:port/postgres
#
# Use a server that serves nothing else, for instance that of `bullwark stores`. Makes and drops three
# databases, `figures…`. Needs psql and pgbench. Takes a few minutes.
set -eu

server=${1:?usage: scripts/record_figures.sh DATABASE_URL_OF_ANY_DATABASE}
here=$(cd "$(dirname "$0")/.." && pwd)
PATH=$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
url() { printf '%s' "$server" | sed "s#/[^/?]*\(?.*\)\{0,1\}\$#/$1\1#"; }
run() { psql -qAtX -v ON_ERROR_STOP=1 "$@"; }

# Rows per transaction, transactions and clients of the comparison.
ROWS=500 TRANSACTIONS=200 CLIENTS=2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cat > "$scratch/insert.sql" <<'SQL'
SELECT nextval('inserted') AS batch \gset
INSERT INTO jobs (id, workspace_id, job_type, job_queue, payload)
SELECT figures_id(2000000 + :batch * 500 + n), figures_workspace((n % 100)::int), 'noop', 'default',
  '{"account_id": "01a2093a-73ad-725c-a430-11ad2f710c92", "fields": ["name", "size"]}'
FROM generate_series(1, 500) n;
SQL
cat > "$scratch/complete.sql" <<'SQL'
SELECT nextval('completed') AS batch \gset
UPDATE jobs j SET status = 'completed', attempt = 1, attempts = 0, result = '{"ok": true}',
  error_message = NULL, started_at = now(), completed_at = now(), next_retry_at = NULL,
  worker_id = 'host-1-abcdef'
FROM (SELECT figures_id(2000000 + :batch * 500 + n) AS id FROM generate_series(1, 500) n) u
WHERE j.id = u.id AND j.status IN ('pending', 'processing', 'failed') AND j.attempt < 1;
SQL

for name in figures figures_indexed; do
  run "$server" -c "DROP DATABASE IF EXISTS $name" -c "CREATE DATABASE $name"
  for file in "$here"/migrations/*.sql; do
    PGOPTIONS='-c search_path=public -c client_min_messages=warning' run -1 "$(url $name)" -f "$file"
  done
  run "$(url $name)" -f "$here/scripts/record_figures.sql"
done
run "$(url figures_indexed)" -c "
  ALTER TABLE jobs SET (fillfactor = 100);
  DROP INDEX jobs_workspace;
  CREATE INDEX idx_jobs_workspace ON jobs (workspace_id);
  CREATE INDEX idx_jobs_status ON jobs (status) WHERE status IN ('pending', 'processing');
  CREATE INDEX idx_jobs_queue_priority ON jobs (job_queue, priority DESC, created_at ASC)
    WHERE status = 'pending';
  CREATE INDEX idx_jobs_scheduled ON jobs (scheduled_for)
    WHERE status = 'pending' AND scheduled_for IS NOT NULL;
  CREATE INDEX idx_jobs_retry ON jobs (next_retry_at)
    WHERE status = 'failed' AND next_retry_at IS NOT NULL;
  CREATE INDEX idx_jobs_type ON jobs (job_type);
  CREATE INDEX idx_jobs_created_by ON jobs (created_by, created_at DESC);
  CREATE INDEX idx_jobs_stale_check ON jobs (worker_heartbeat_at) WHERE status = 'processing'" \
  -c "VACUUM FULL jobs" -c "ANALYZE jobs"

echo '== plans, one million jobs'
run "$(url figures)" -f "$here/scripts/record_plans.sql"

# Indexes that an operator may add: their columns never change, so updates stay heap-only.
run "$server" -c "DROP DATABASE IF EXISTS figures_optional" \
  -c "CREATE DATABASE figures_optional TEMPLATE figures"
run "$(url figures_optional)" -c "CREATE INDEX jobs_type ON jobs (job_type, id DESC)" \
  -c "CREATE INDEX jobs_created_by ON jobs (created_by, id DESC)"
echo '-- with the optional indexes: a rare type, and a creator without jobs'
for where in "job_type = 'generate_report'" "created_by = '00000000-0000-7000-8000-000000000000'"; do
  query="SELECT * FROM jobs WHERE $where ORDER BY id DESC LIMIT 50"
  run "$(url figures_optional)" -c "$query" >/dev/null
  run "$(url figures_optional)" -c "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) $query"
done

echo "== the same writes: the record, with two optional indexes, with the specification's eight"
for round in 1 2 3; do
  for name in figures figures_optional figures_indexed; do
    run "$(url $name)" -c CHECKPOINT -c "SELECT pg_stat_reset()" >/dev/null
    for step in insert complete; do
      before=$(run "$(url $name)" -c "SELECT pg_current_wal_insert_lsn()")
      tps=$(PGOPTIONS='-c enable_hashjoin=off -c enable_mergejoin=off -c enable_seqscan=off' \
        pgbench -n -c $CLIENTS -j $CLIENTS -t $TRANSACTIONS -M prepared \
        -f "$scratch/$step.sql" "$(url $name)" 2>"$scratch/errors" |
        sed -n 's/^tps = \([0-9.]*\).*/\1/p') || { cat "$scratch/errors"; exit 1; }
      bytes=$(run "$(url $name)" -c "SELECT (pg_current_wal_insert_lsn() - '$before')::bigint
        / ($CLIENTS * $TRANSACTIONS * $ROWS)")
      echo "round $round $name $step: $(echo "$tps * $ROWS" | bc | cut -d. -f1) rows/s," \
        "$bytes bytes of WAL per row"
    done
    # Statistics of a closed connection arrive with a delay.
    run "$(url $name)" -c "SELECT pg_sleep(2)" -c "
      SELECT 'round $round $name: ' || n_tup_hot_upd || ' of ' || n_tup_upd || ' updates HOT, '
        || pg_size_pretty(pg_relation_size('jobs')) || ' table, '
        || pg_size_pretty(pg_indexes_size('jobs')) || ' indexes'
      FROM pg_stat_user_tables WHERE relname = 'jobs'"
  done
done
run "$server" -c "DROP DATABASE figures" -c "DROP DATABASE figures_indexed" \
  -c "DROP DATABASE figures_optional"
