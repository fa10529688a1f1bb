# A repository from nothing: commits, branches, a merge, history, packing, a clone. Dates are fixed, so hashes are.
set -euo pipefail
export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.org GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example.org
export GIT_AUTHOR_DATE='2020-01-01T00:00:00Z' GIT_COMMITTER_DATE='2020-01-01T00:00:00Z' GIT_CONFIG_NOSYSTEM=1
git init --quiet --initial-branch=main repository
cd repository
for i in $(seq 1 15); do
    seq "$i" $((i * 100)) > "file$i"
    git add .
    git commit --quiet --message "commit $i"
done
git checkout --quiet -b side HEAD~5
echo side > side
git add side
git commit --quiet --message side
git checkout --quiet main
git merge --quiet --no-edit side
git log --oneline --graph -n 5
git grep --count 999 | sed -n 1,3p
git gc --quiet --aggressive --prune=now
git fsck --full 2>/dev/null
git count-objects
cd ..
git clone --quiet repository copy
git -C copy log --oneline | wc -l
git -C copy diff --stat HEAD~3 | tail -n 1
echo "repository done"
