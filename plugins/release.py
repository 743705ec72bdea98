#!/usr/bin/env python3
"""Packs kubectl-tiktokshop for a release: an archive for each platform of the krew manifest, SHA256SUMS, and the
manifest with the archives' addresses and sums.

Usage: release.py VERSION URL BINARIES OUT

VERSION is such as v0.1.0, URL where the archives will be. BINARIES holds a folder for each platform,
kubectl-tiktokshop-OS-ARCH, with the program in it. The same programs give the same archives.
"""

import gzip
import hashlib
import io
import pathlib
import re
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
# An archive's address and sum, as the manifest in the tree has them.
ARCHIVE = re.compile(r'uri: https://\S+/(kubectl-tiktokshop-\w+-\w+)\.tar\.gz(\s+)sha256: "0{64}"')


def archive(platform, binaries):
    """The bytes of a platform's archive: the program, its completion where there are shell scripts, the licence."""
    windows = "-windows-" in platform
    program = "kubectl-tiktokshop" + (".exe" if windows else "")
    files = {program: binaries / platform / program, "LICENSE": HERE.parent / "LICENSE"}
    if not windows:
        files["kubectl_complete-tiktokshop"] = HERE / "kubectl_complete-tiktokshop"
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            content = files[name].read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644 if name == "LICENSE" else 0o755
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(tar_bytes.getvalue(), mtime=0)


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    version, url, binaries, out = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])
    out.mkdir(parents=True, exist_ok=True)
    sums = {}

    def pack(match):
        platform, space = match.groups()
        content = archive(platform, binaries)
        name = f"{platform}.tar.gz"
        (out / name).write_bytes(content)
        sums[name] = hashlib.sha256(content).hexdigest()
        return f'uri: {url.rstrip("/")}/{name}{space}sha256: "{sums[name]}"'

    manifest = (HERE / "krew" / "tiktokshop.yaml").read_text(encoding="utf-8")
    if f"version: {version}\n" not in manifest:
        sys.exit(f"release.py: plugins/krew/tiktokshop.yaml is not of version {version}")
    filled = ARCHIVE.sub(pack, manifest)
    # What is said there of the manifest in the tree is not so of this one.
    filled = filled[filled.index("apiVersion:"):]
    (out / "tiktokshop.yaml").write_text(filled, encoding="utf-8")
    lines = [f"{digest}  {name}\n" for name, digest in sorted(sums.items())]
    (out / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
