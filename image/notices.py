#!/usr/bin/env python3
"""Prints the licence texts of what is in the static binary: crates, Rust's library, glibc, libgcc, and the CA roots.

Usage: notices.py TARGET. Each text stands once, below the list of what it belongs to. The same input gives the same
output. It errs on the side of more: crates that only kubectl-tiktokshop uses are listed as well.
"""

import glob
import json
import os
import re
import subprocess
import sys

NAMES = re.compile(r"(licen[sc]e|copying|notice|copyright)", re.IGNORECASE)
# Of the C libraries that are linked in, and of the roots that lie beside the binary.
DEBIAN = {"glibc": "libc6-dev", "libgcc": "libgcc-*-dev", "Mozilla's CA certificates": "ca-certificates"}
MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        text = "\n".join(line.rstrip() for line in file.read().splitlines())
    return text.strip("\n") + "\n"


def texts_in(folder):
    """The licence files of one crate, those of code that it brings along included."""
    found = []
    for here, folders, files in os.walk(folder):
        folders.sort()
        found += [os.path.join(here, name) for name in sorted(files) if NAMES.match(name) and not name.endswith(".rs")]
    return [read(path) for path in found]


def fallback(package):
    """The text of a crate that ships none: that of the licence it names."""
    licence = package["license"] or ""
    if "Apache-2.0" in licence:
        return read("LICENSE")
    if "MIT" in licence:
        return f"Copyright (c) {', '.join(package['authors']) or 'the authors of ' + package['name']}\n\n{MIT}"
    sys.exit(f"notices.py: {package['name']} ships no licence text, and there is none here for {licence!r}")


def crates(target):
    tree = output("cargo", "tree", "--locked", "--edges", "normal", "--target", target, "--package",
                  "tiktok-shop-operator", "--prefix", "none", "--no-dedupe", "--format", "{p}")
    linked = {tuple(line.split(" ")[:2]) for line in tree.splitlines() if line}
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    for package in sorted(metadata["packages"], key=lambda package: (package["name"], package["version"])):
        if package["source"] and (package["name"], "v" + package["version"]) in linked:
            folder = os.path.dirname(package["manifest_path"])
            yield (f"{package['name']} {package['version']} ({package['license']})",
                   texts_in(folder) or [fallback(package)])


def toolchain():
    sysroot = output("rustc", "--print", "sysroot").strip()
    version = output("rustc", "--version").split()[1]
    # The library alone; COPYRIGHT.html is the compiler's, and 13 MB.
    paths = glob.glob(f"{sysroot}/share/doc/rust/COPYRIGHT-library.html")
    if not paths:
        sys.exit(f"notices.py: no licence of Rust's library in {sysroot}/share/doc/rust")
    yield f"Rust's standard library {version} (MIT OR Apache-2.0)", [read(path) for path in paths]
    for name, package in DEBIAN.items():
        paths = sorted(glob.glob(f"/usr/share/doc/{package}/copyright"))
        if not paths:
            sys.exit(f"notices.py: no /usr/share/doc/{package}/copyright, the licence of {name}")
        yield name, [read(paths[-1])]
    # glibc's is named there and not printed.
    yield "glibc", [read("/usr/share/common-licenses/LGPL-2.1")]


def main():
    owners = {}
    for owner, texts in [*crates(sys.argv[1]), *toolchain()]:
        for text in texts:
            named = owners.setdefault(text, [])
            if owner not in named:
                named.append(owner)
    print("tiktok-shop-operator is licensed under Apache-2.0 (LICENSE). It holds the work of others, under these licences.")
    for text, named in owners.items():
        print("\n" + "=" * 100)
        print("\n".join(named))
        print("-" * 100)
        print(text, end="")


if __name__ == "__main__":
    main()
