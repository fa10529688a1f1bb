# A repository with 1500 commits to one of 50 files each, made in one go.
set -euo pipefail
git init --quiet --initial-branch=main history
for i in $(seq 1 1500); do
    text="commit $i
$((i * 7919 % 10007)) $((i * 104729 % 1000003))"
    printf 'commit refs/heads/main\ncommitter A <a@example.org> %d +0000\ndata %d\n%s\n' $((1500000000 + i)) ${#text} "$text"
    printf 'M 644 inline file%d\ndata %d\n%s\n' $((i % 50)) ${#text} "$text"
done | git -C history fast-import --quiet
