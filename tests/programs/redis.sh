# A server on a socket in this folder: keys, a background save while keys change, a second start from the file.
set -euo pipefail
ask() { redis-cli -s "$PWD/redis.sock" "$@"; }
start() {
    redis-server --port 0 --unixsocket "$PWD/redis.sock" --dir "$PWD" --save '' --logfile log --daemonize no >/dev/null &
    for _ in $(seq 1 600); do
        [ "$(ask ping 2>/dev/null || true)" = PONG ] && return
        sleep 0.05
    done
    echo "the server does not answer" >&2
    cat log >&2
    exit 1
}
start
ask debug populate 20000 key 100
ask set name value
ask bgsave
ask incrby counter 41
for _ in $(seq 1 600); do
    ask info persistence | grep -q 'rdb_bgsave_in_progress:0' && break
    sleep 0.05
done
ask info persistence | tr -d '\r' | grep -E 'rdb_(bgsave_in_progress|last_bgsave_status):'
ask incr counter
ask dbsize
ask shutdown nosave
wait
[ -s dump.rdb ] && echo "saved"
start
ask get name
ask dbsize
ask shutdown nosave
wait
echo "redis done"
