#!/usr/bin/env bash
# Prints, as its last line, the path of the program NAME: `tests/tools/tool.sh helm`.
#
# Each folder beside this script is a Go module that holds no code and pins one program by its
# `tool` line; one module each keeps their versions from meeting. The program is built into a cache
# outside the tree, keyed by a hash of the pin and this script, the first time it is asked for. A line
# `// build tags: TAGS` in its go.mod leaves out parts of the program that nothing here uses.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

name=${1:-}
[ -n "$name" ] && [ -f "$name/go.mod" ] || {
  echo "usage: $0 NAME, one of: $(printf '%s\n' */go.mod | xargs -n 1 dirname | xargs)" >&2
  exit 2
}
say() { echo "$name: $*" >&2; }

pin=$(cat "$name/go.mod" "$name/go.sum" tool.sh <(uname -sm) | sha256sum | cut -c1-16)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/tiktok-shop-operator/tools/$name-$pin"
binary="$cache/$name"

if [ ! -x "$binary" ]; then
  command -v go >/dev/null || {
    say "Go is needed to build it (https://go.dev/dl)"
    exit 1
  }
  mkdir -p "$cache"
  # One build at a time: whoever comes second waits here and finds it done.
  exec 9>"$cache/.lock"
  flock 9
  if [ ! -x "$binary" ]; then
    package=$(sed -n 's/^tool //p' "$name/go.mod")
    [ "$(wc -w <<<"$package")" -eq 1 ] || { say "$name/go.mod needs one line 'tool PACKAGE'"; exit 1; }
    tags=$(sed -n 's|^// build tags: ||p' "$name/go.mod")
    began=$SECONDS
    say "building $package (some minutes the first time; kept in $cache)"
    (cd "$name" && CGO_ENABLED=0 go build -trimpath -tags "$tags" -ldflags "-s -w" -o "$cache/$name.part" "$package") >&2
    mv "$binary.part" "$binary"
    say "built in $((SECONDS - began)) s"
  fi
fi
echo "$binary"
