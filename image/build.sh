#!/usr/bin/env bash
# Builds the image of the Dockerfile into an OCI archive, without a container engine, as root; prints its path last.
#
#   BUILDER  the base of the build stage, such as docker.io/library/rust:1.95-bookworm. Where it is not set, the
#            toolchain of this machine takes its place, so that no registry is needed.
#   OUT      where the archive goes: target/image/tiktok-shop-operator.tar
#   TAG      its name: localhost/tiktok-shop-operator:VERSION
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "image: $*" >&2; }

[ "$(id -u)" = 0 ] || { say "run it as root: buildah needs it where there is no user namespace to be had"; exit 1; }
if ! command -v buildah >/dev/null; then
  command -v apt-get >/dev/null || { say "buildah is needed: install it with your package manager"; exit 1; }
  say "installing buildah"
  # One list of packages for all: a machine's own may be too old to be served.
  apt-get update -qq >&2
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah >&2
fi

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# One digest for one commit: every time in the image is that of the commit.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
out=${OUT:-target/image/tiktok-shop-operator.tar}
tag=${TAG:-localhost/tiktok-shop-operator:$version}
cache="${XDG_CACHE_HOME:-$HOME/.cache}/tiktok-shop-operator/image"
mkdir -p "$cache" "$(dirname "$out")"

# Store and caches are ours alone; what the Dockerfile mounts as a cache goes below TMPDIR.
export TMPDIR="$cache"
store=(--storage-driver vfs --root "$cache/storage" --runroot "$cache/run")
work=$(mktemp -d)
images=("$tag")
cleanup() {
  buildah "${store[@]}" rmi --force "${images[@]}" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

base=(--build-arg "BUILDER=${BUILDER:-}")
if [ -z "${BUILDER:-}" ]; then
  # A base with nothing in it but names: the toolchain itself is mounted, as copying takes gigabytes. With it comes
  # what its cargo needs to reach the registry as this machine does.
  say "the build stage is this machine's own toolchain: $(rustc --version), glibc $(getconf GNU_LIBC_VERSION | cut -d' ' -f2)"
  cargo=${CARGO_HOME:-$HOME/.cargo}
  mkdir -p "$cargo/registry"
  local_base=localhost/toolchain-of-this-machine
  images+=("$local_base")
  container=$(buildah "${store[@]}" from scratch)
  mkdir -p "$work"/{usr,etc/alternatives,etc/ssl,opt/rust,opt/cargo/registry,tmp,src}
  for dir in bin sbin lib lib64; do [ ! -e "/usr/$dir" ] || ln -s "usr/$dir" "$work/$dir"; done
  buildah "${store[@]}" copy --quiet "$container" "$work" / >/dev/null
  buildah "${store[@]}" config --env PATH=/opt/rust/bin:/usr/bin:/bin --env CARGO_HOME=/opt/cargo "$container"
  buildah "${store[@]}" commit --quiet --rm "$container" "$local_base" >/dev/null
  base=(--build-arg "BUILDER=$local_base" --pull-never
    --volume "$(rustc --print sysroot):/opt/rust:ro"
    --volume "$cargo/registry:/opt/cargo/registry"
    --volume /usr:/usr:ro --volume /etc/alternatives:/etc/alternatives:ro --volume /etc/ssl:/etc/ssl:ro)
  [ ! -f "$cargo/config.toml" ] || base+=(--volume "$cargo/config.toml:/opt/cargo/config.toml:ro")
fi

buildah "${store[@]}" bud --isolation chroot --format oci --layers=false --timestamp "$epoch" --identity-label=false \
  "${base[@]}" --build-arg "SOURCE_DATE_EPOCH=$epoch" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
  --tag "$tag" . >&2
rm -f "$out"
buildah "${store[@]}" push --quiet "$tag" "oci-archive:$out:$tag"
say "$tag, $(tar -xOf "$out" index.json | sed 's/.*"digest":"\([^"]*\)".*/\1/'), $(du -k --apparent-size "$out" | cut -f1) KiB compressed"
echo "$out"
