# syntax=docker/dockerfile:1

# Portcullis in a container:
#
#   docker build --build-arg PORTCULLIS_COMMIT="$(git rev-parse HEAD)" -t portcullis .
#   docker run --read-only --cap-drop=ALL --security-opt=no-new-privileges --stop-timeout=45 \
#       --add-host=host.docker.internal:host-gateway -p 8443:8443 \
#       -v ./config/container:/etc/portcullis:ro -v ./certs:/etc/certs:ro -v portcullis:/var/lib/portcullis portcullis
#
# The configuration is /etc/portcullis/portcullis.toml; the files it names must be readable by user 65532. Whatever
# must survive a restart belongs on the volume. docs/deployment.md explains each option.

# ---- build ----------------------------------------------------------------------------------------------------------
FROM rust:1.95-bookworm AS build

# The C sources of aws-lc and jemalloc need the C compiler and make of this image; on x86-64 and ARM64 neither CMake nor
# clang, because the bindings come with the crate.
WORKDIR /src
COPY . .

# Debug information stays out of the image; function names stay in, for readable backtraces.
ENV CARGO_PROFILE_DIST_STRIP=debuginfo

# The commit that `portcullis --version` names; the build context has no .git.
ARG PORTCULLIS_COMMIT=""
ENV PORTCULLIS_COMMIT=$PORTCULLIS_COMMIT
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin portcullis \
    && cp target/dist/portcullis /usr/local/bin/portcullis \
    && mkdir /state

# ---- run ------------------------------------------------------------------------------------------------------------
# glibc, libgcc and the public root certificates; no shell and no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot

COPY --from=build /usr/local/bin/portcullis /usr/local/bin/portcullis

COPY --from=build --chown=65532:65532 /state /var/lib/portcullis
VOLUME /var/lib/portcullis

USER 65532:65532
ENV PORTCULLIS_CONFIG=/etc/portcullis/portcullis.toml

# Public, admin, telemetry.
EXPOSE 8443 9443 9464

# Whether the process serves. Whether it can judge tokens (`probe ready`) is for load balancers: a restart does not
# bring an identity provider back.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 \
    CMD ["/usr/local/bin/portcullis", "probe", "live"]

# SIGTERM drains. The supervisor must wait for longer than server.shutdown_delay and server.drain_timeout together.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["run"]
