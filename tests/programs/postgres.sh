# A cluster from nothing, a server on a socket in this folder, tables, parallel work, and a clean stop.
set -euo pipefail
exec 3>&1
initdb --pgdata data --username postgres --auth trust --no-locale --encoding UTF8 --no-sync > initdb.log
cat >> data/postgresql.conf <<CONF
listen_addresses = ''
unix_socket_directories = '$PWD'
fsync = off
shared_buffers = 16MB
CONF
pg_ctl --pgdata data --log server.log --wait --silent start >/dev/null || { cat server.log >&2; exit 1; }
trap 'pg_ctl --pgdata data --mode immediate --silent stop >/dev/null 2>&1 || true' EXIT
ask() { psql --host "$PWD" --username postgres --no-psqlrc --quiet --set ON_ERROR_STOP=1 --tuples-only --no-align "$@" postgres; }
ask <<SQL
CREATE TABLE numbers AS SELECT n, n::bigint * n AS square, md5(n::text) AS hash FROM generate_series(1, 50000) n;
CREATE INDEX ON numbers (hash);
ANALYZE numbers;
SELECT count(*), sum(square) FROM numbers;
SELECT n FROM numbers WHERE hash = md5('777');
SET work_mem = '64kB';
SELECT hash FROM numbers ORDER BY hash LIMIT 2;
SQL
for i in 1 2 3; do ask -c "SELECT $i, count(*) FROM numbers WHERE n % $i = 0" > "answer$i" & done
wait
cat answer1 answer2 answer3
pg_ctl --pgdata data --mode fast --wait --silent stop
trap - EXIT
echo "postgres done" >&3
