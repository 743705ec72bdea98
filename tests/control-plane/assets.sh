#!/usr/bin/env bash
# Prints, as its last line, a folder that holds etcd, kube-apiserver and kubectl.
#
# K8S says which minor of Kubernetes: one of the folders beside this script, 1.36 where it says nothing.
# They come, in this order, from: KUBEBUILDER_ASSETS (the convention of envtest);
# a cache outside the tree, keyed by a hash of the pins and of how they are built; else they are built
# from the pinned Go modules into that cache: about 5 minutes on 2 cores, once for each minor.
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

minor=${K8S:-1.36}
if [[ ! $minor =~ ^1\.[0-9]+$ ]] || [ ! -f "$minor/go.mod" ]; then
  say "K8S=$minor is not pinned here: it is one of $(echo 1.*/ | tr -d /)"
  exit 1
fi

# What it does is part of the key of the cache.
build() { # file pin package ldflags
  (cd "$2" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $4" -o "$1.part" "$3") >&2
  mv "$1.part" "$1"
}

key() { # pin...
  { for pin; do cat "$pin/go.mod" "$pin/go.sum"; done && declare -f build && uname -sm; } | sha256sum | cut -c1-16
}

root="${XDG_CACHE_HOME:-$HOME/.cache}/tiktok-shop-operator"
cache="$root/control-plane-$minor-$(key "$minor" etcd)"
# One etcd for all minors.
etcd="$root/etcd-$(key etcd)"

complete() {
  local binary
  for binary in "${binaries[@]}"; do [ -x "$cache/$binary" ] || return 1; done
}

if ! complete; then
  command -v go >/dev/null || {
    say "Go is needed to build it (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder of ready binaries"
    exit 1
  }
  mkdir -p "$cache" "$etcd"
  # One build at a time: whoever comes second waits here and finds it done.
  exec 9>"$root/.control-plane.lock"
  flock 9
  announce() { say "building $1 (about $2 the first time; kept in $root)"; }
  if [ ! -x "$etcd/etcd" ]; then
    announce etcd "1 minute"
    build "$etcd/etcd" etcd go.etcd.io/etcd/server/v3 ""
  fi
  [ -x "$cache/etcd" ] || ln -f "$etcd/etcd" "$cache/etcd"
  version=$(sed -n 's|^[[:space:]]*k8s.io/kubernetes \(v[0-9.]*\).*|\1|p' "$minor/go.mod")
  [ -n "$version" ] || { say "$minor/go.mod pins no k8s.io/kubernetes"; exit 1; }
  stamp="k8s.io/component-base/version"
  stamps="-X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor#1.}"
  for binary in kubectl kube-apiserver; do
    [ -x "$cache/$binary" ] && continue
    announce "$binary $version" "$([ "$binary" = kubectl ] && echo 1.5 || echo 3) minutes"
    build "$cache/$binary" "$minor" "k8s.io/kubernetes/cmd/$binary" "$stamps"
  done
  say "ready"
fi
echo "$cache"
