#!/usr/bin/env bash
# Prints, as its last line, a folder that holds etcd, kube-apiserver and kubectl.
#
# They come, in this order, from: KUBEBUILDER_ASSETS (the convention of envtest);
# a cache outside the tree, keyed by a hash of the pin and this script; else they are built from
# the Go modules pinned in go.mod into that cache: about 5 minutes on 2 cores, once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { echo "control plane: $*" >&2; }

binaries=(etcd kube-apiserver kubectl)

if [ -n "${KUBEBUILDER_ASSETS:-}" ]; then
  for binary in "${binaries[@]}"; do
    if [ ! -x "$KUBEBUILDER_ASSETS/$binary" ]; then
      say "KUBEBUILDER_ASSETS=$KUBEBUILDER_ASSETS has no executable $binary: fill it with 'setup-envtest use -p path', or unset it to build from source"
      exit 1
    fi
  done
  echo "$KUBEBUILDER_ASSETS"
  exit 0
fi

pin=$(cat go.mod go.sum assets.sh <(uname -sm) | sha256sum | cut -c1-16)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/tiktok-shop-operator/control-plane-$pin"

complete() {
  local binary
  for binary in "${binaries[@]}"; do [ -x "$cache/$binary" ] || return 1; done
}

if ! complete; then
  command -v go >/dev/null || {
    say "Go is needed to build it (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder of ready binaries"
    exit 1
  }
  mkdir -p "$cache"
  # One build at a time: whoever comes second waits here and finds it done.
  exec 9>"$cache/.lock"
  flock 9
  if ! complete; then
    version=$(sed -n 's|^[[:space:]]*k8s.io/kubernetes \(v[0-9.]*\).*|\1|p' go.mod)
    [ -n "$version" ] || { say "go.mod pins no k8s.io/kubernetes"; exit 1; }
    IFS=. read -r major minor _ <<<"${version#v}"
    stamp="k8s.io/component-base/version"
    ldflags="-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=$major -X $stamp.gitMinor=$minor"
    build() { # binary package expected-time
      [ -x "$cache/$1" ] && return
      say "building $1 ${version} (about $3 the first time; kept in $cache)"
      CGO_ENABLED=0 go build -trimpath -ldflags "$ldflags" -o "$cache/$1.part" "$2" >&2
      mv "$cache/$1.part" "$cache/$1"
    }
    build etcd go.etcd.io/etcd/server/v3 "1 minute"
    build kubectl k8s.io/kubernetes/cmd/kubectl "1.5 minutes"
    build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "3 minutes"
    say "built"
  fi
fi
echo "$cache"
