#!/usr/bin/env bash
# Writes a pin anew: pin.sh kubernetes v1.36.3 writes 1.36/go.mod, pin.sh etcd v3.6.8 writes etcd/go.mod.
# Only for whoever moves a pin; what builds them is assets.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

what=${1:-} version=${2:-}
[[ $what =~ ^(kubernetes|etcd)$ && $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+$ ]] || {
  echo "pin.sh: say what and which version: pin.sh kubernetes v1.36.3, or pin.sh etcd v3.6.8" >&2
  exit 2
}

if [ "$what" = etcd ]; then
  dir=etcd module=go.etcd.io/etcd/server/v3 tools=(go.etcd.io/etcd/server/v3)
else
  dir=${version#v} dir=${dir%.*} module=k8s.io/kubernetes
  tools=(k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl)
fi
mkdir -p "$dir"
cd "$dir"
rm -f go.mod go.sum
{
  echo "// Pins what tests and demo run: see assets.sh. Written by pin.sh; holds no code."
  printf 'module tiktokshop.dev/control-plane/%s\n\ngo 1.26.0\n\ntool (\n' "$dir"
  printf '\t%s\n' "${tools[@]}"
  printf ')\n\nrequire %s %s\n' "$module" "$version"
  if [ "$what" = kubernetes ]; then
    # Kubernetes replaces its staging modules by folders of its own tree; published, each is v0 of the same numbers.
    theirs=$(cd / && go mod download -json "$module@$version" | sed -n 's|^[[:space:]]*"GoMod": "\(.*\)",*$|\1|p')
    echo "replace ("
    sed -n 's|^[[:space:]]*\(replace \)\{0,1\}\(k8s.io/[a-z0-9-]*\) => ./staging/.*|\2|p' "$theirs" |
      while read -r staging; do printf '\t%s => %s v0.%s\n' "$staging" "$staging" "${version#v1.}"; done
    echo ")"
  fi
} >go.mod
go mod tidy
