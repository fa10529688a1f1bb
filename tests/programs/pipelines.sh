# Pipelines, substitutions, here-documents, background jobs, subshells, traps, process substitution.
set -euo pipefail
seq 1 20000 | awk '{ sum += $1 } END { print sum }'
seq 1 5000 | sort -rn | sed -n 1,3p | tr '\n' ' '
echo
files=$(for i in $(seq 1 20); do echo "file $i" > "f$i"; echo "f$i"; done)
cat $files | sort -k2n | tail -n 1
for i in 1 2 3 4; do (sleep 0.0$i; echo "job $i" > "job$i") & done
wait
cat job1 job2 job3 job4
diff <(seq 1 100) <(seq 1 100) && echo "the same"
gzip -c <<<"$(seq 1 30000)" | gunzip -c | md5sum
trap 'echo "caught USR1"' USR1
kill -USR1 $$
status=0
{ bash -c 'kill -KILL $$' || status=$?; } 2>/dev/null
echo "a killed child has status $status"
false | true || echo "pipefail seen"
dd if=/dev/zero bs=64k count=64 2>/dev/null | tee copy | wc -c
cmp copy <(head -c $((64 * 65536)) /dev/zero) && echo "copied"
echo "pipelines done"
