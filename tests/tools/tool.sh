#!/usr/bin/env bash
# Prints, as its last line, the path of the program NAME: `tests/tools/tool.sh helm`.
#
# Each folder beside this script is a Go module that holds no code and pins one program by its
# `tool` line; one module each keeps their versions from meeting. The program is built into a cache
# outside the tree, keyed by a hash of the pin and this script, the first time it is asked for. A line
# `// build tags: TAGS` in its go.mod leaves out parts of the program that nothing here uses; a line
# `// build fills: PATH` puts an empty file where the module, as it is published, lacks one that it embeds.
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
    fills=$(sed -n 's|^// build fills: ||p' "$name/go.mod")
    began=$SECONDS
    say "building $package (some minutes the first time; kept in $cache)"
    (
      cd "$name"
      pinned=go.mod
      if [ -n "$fills" ]; then
        # A module as Go keeps it can't be written to: a copy takes its place, for this build alone.
        read -r module source < <(go list -e -f '{{.Module.Path}} {{.Module.Dir}}' "$package")
        rm -rf "$cache/module"
        cp -R "$source" "$cache/module"
        chmod -R u+w "$cache/module"
        mkdir -p "$(dirname "$cache/module/$fills")"
        : >"$cache/module/$fills"
        cp go.mod go.sum "$cache"
        pinned="$cache/go.mod"
        go mod edit -replace "$module=$cache/module" "$pinned"
      fi
      CGO_ENABLED=0 go build -modfile "$pinned" -trimpath -tags "$tags" -ldflags "-s -w" -o "$binary.part" "$package"
    ) >&2
    rm -rf "$cache/module" "$cache/go.mod" "$cache/go.sum"
    mv "$binary.part" "$binary"
    say "built in $((SECONDS - began)) s"
  fi
fi
echo "$binary"
