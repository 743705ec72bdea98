#!/usr/bin/env bash
# Can the fault suite fail? Each patch in defects/ is applied to a copy of the tree, and the suite is run
# on what is built from it: it has to fail, and to say what the patch says.
#
#   tests/faults/selftest.sh [NAME...]      all defects, or some by name
#
# A patch begins with what is wrong, then "Cells:", which are tried in turn, "Says:", what the suite has to
# say, "Args:" where the suite needs more, and "Env:" where the operator does. One build folder serves all; it is kept between runs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
defects=$root/tests/faults/defects
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tiktok-shop-operator/selftest
copy=$cache/tree
mkdir -p "$cache"
log=$(mktemp)
trap 'rm -rf "$copy" "$log"' EXIT

field() { sed -n "s/^$1: //p" "$2"; }

names=("$@")
[ ${#names[@]} -gt 0 ] || names=($(cd "$defects" && ls ./*.patch | sed 's|^\./||; s|\.patch$||'))
missed=()
for name in "${names[@]}"; do
  patch=$defects/$name.patch
  [ -f "$patch" ] || { echo "there is no defect $name: see ls tests/faults/defects"; exit 2; }
  rm -rf "$copy" && mkdir -p "$copy"
  (cd "$root" && git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory="$copy")
  # The times of files whose content is the same stay, so that only what differs is built anew.
  git -C "$copy" init -q
  git -C "$copy" apply "$patch"
  says=$(field Says "$patch")
  caught=
  # What does not compile is caught by nobody.
  (cd "$copy" && CARGO_TARGET_DIR=$cache/target cargo build --quiet --bins --examples) \
    || { echo "$name does not compile: seed it anew"; exit 2; }
  for cells in $(field Cells "$patch"); do
    if (cd "$copy" && export CARGO_TARGET_DIR=$cache/target && cargo test --quiet --test faults -- \
      --full --seed 1 --times 8 --lanes 8 $(field Args "$patch") --only "$cells") >"$log" 2>&1; then
      continue
    fi
    if grep -qE "$says" "$log"; then
      caught=$cells
      break
    fi
  done
  if [ -n "$caught" ]; then
    echo "caught  $name: at $caught, \"$(grep -oE "$says" "$log" | head -1)\""
  else
    echo "MISSED  $name: $(head -1 "$patch")"
    grep -E "^(FAILED|  [a-z].*|faults: .*lost)" "$log" | sort | uniq -c | head -20 || true
    missed+=("$name")
  fi
done
[ ${#missed[@]} -eq 0 ] || { echo "${#missed[@]} of ${#names[@]} defects are not caught: ${missed[*]}"; exit 1; }
echo "all ${#names[@]} defects are caught"
