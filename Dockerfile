# The operator's image: one static binary on nothing. `make image` builds it on a machine with a Rust
# toolchain and no registry; `docker build .` with the base named here.
#
# What the build stage needs: Rust, a C compiler, glibc's static libraries, Python 3, Debian's ca-certificates.
ARG BUILDER=docker.io/library/rust:1.95-bookworm

FROM ${BUILDER} AS build
WORKDIR /src

# The list of components, by the tool of the CycloneDX project itself. Kept between builds where the builder can.
ARG CYCLONEDX=0.5.9
RUN --mount=type=cache,id=tiktok-shop-operator-tools,target=/tools \
    CARGO_TARGET_DIR=/tools/target cargo install --debug cargo-cyclonedx --version "$CYCLONEDX" --locked --root /tools --quiet \
    && mkdir -p /opt/tools && cp /tools/bin/cargo-cyclonedx /opt/tools/

COPY . .

# Of the commit, for the list of components: else it has a serial number and an hour of its own.
ARG SOURCE_DATE_EPOCH=0
# crt-static: glibc's own resolver is in the binary, with the sources `files` and `dns` (built in since 2.34).
# The paths of this stage are taken out, since panics would print them.
RUN --mount=type=cache,id=tiktok-shop-operator-target,target=/target \
    export RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=${CARGO_HOME}=/cargo --remap-path-prefix=/src=." \
    && export CARGO_TARGET_DIR=/target target="$(rustc -vV | sed -n 's/^host: //p')" \
    && cargo build --release --locked --target "$target" --bin tiktok-shop-operator \
    && mkdir -p /rootfs/etc/ssl/certs /rootfs/licenses /rootfs/sbom \
    && cp "/target/$target/release/tiktok-shop-operator" /rootfs/ \
    && ! readelf --program-headers /rootfs/tiktok-shop-operator | grep INTERP \
    # Mozilla's roots alone: what this machine trusts besides is its own affair.
    && LC_ALL=C sh -c 'cat /usr/share/ca-certificates/mozilla/*.crt' >/rootfs/etc/ssl/certs/ca-certificates.crt \
    # Names in /etc/hosts before names in DNS, whatever glibc's default is.
    && echo 'hosts: files dns' >/rootfs/etc/nsswitch.conf \
    && cp LICENSE /rootfs/licenses/ \
    && python3 image/notices.py "$target" >/rootfs/licenses/THIRD-PARTY.txt \
    && SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" PATH="$PATH:/opt/tools" cargo cyclonedx --format json \
        --target "$target" --no-build-deps --override-filename sbom.cdx --quiet \
    && cp sbom.cdx.json /rootfs/sbom/tiktok-shop-operator.cdx.json

FROM scratch
ARG VERSION=0.0.0
ARG REVISION=unknown
ARG SOURCE=https://tiktokshop.dev
LABEL org.opencontainers.image.title="tiktok-shop-operator" \
      org.opencontainers.image.description="Kubernetes operator that keeps TikTok Shop API tokens alive" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.url="https://tiktokshop.dev" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /rootfs/ /
# No user of any image that people build, and not root: 'nonroot' by custom.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/tiktok-shop-operator"]
CMD ["run"]
