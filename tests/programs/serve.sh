# Runs redis-benchmark against a server that the command line in the arguments starts; prints the seconds it took.
set -euo pipefail
"$@" --port 0 --unixsocket "$PWD/redis.sock" --dir "$PWD" --save '' --logfile log --daemonize no >/dev/null &
for _ in $(seq 1 600); do
    [ "$(redis-cli -s "$PWD/redis.sock" ping 2>/dev/null || true)" = PONG ] && break
    sleep 0.02
done
start=$EPOCHREALTIME
redis-benchmark -s "$PWD/redis.sock" -q -n 30000 -c 20 -d 100 -r 1000 -t set,get,lpush,lpop >/dev/null
end=$EPOCHREALTIME
redis-cli -s "$PWD/redis.sock" shutdown nosave
wait
echo $((${end/./} - ${start/./}))
