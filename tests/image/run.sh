#!/bin/sh
# Runs the program of an unpacked image as a container runtime would: with a root file system that nobody can write
# to, as the user that the image names. POD is a folder made by stage.rs: rootfs/, mounts, user, program.
# No process is left between: who signals the one that was started signals the program.
set -eu
exec unshare --mount --propagation private /bin/sh -euc '
  pod=$1
  shift
  mount --bind "$pod/rootfs" "$pod/rootfs"
  while read -r from to; do mount --bind "$from" "$pod/rootfs/$to"; done <"$pod/mounts"
  mount -o remount,bind,ro "$pod/rootfs"
  exec chroot --userspec="$(cat "$pod/user")" --groups= "$pod/rootfs" "$(cat "$pod/program")" "$@"
' sh "$POD" "$@"
