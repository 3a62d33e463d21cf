# syntax=docker/dockerfile:1

# Portcullis in a container:
#
#   docker build -t portcullis .
#   docker run -v ./config:/etc/portcullis:ro -v portcullis:/var/lib/portcullis -p 8443:8443 portcullis
#
# The configuration is /etc/portcullis/portcullis.toml; the files it names are relative to it and must be readable by
# user 65532. What must survive a restart belongs on the volume: state.path = "/var/lib/portcullis/portcullis.db".
# Inside a container, 127.0.0.1 is the container itself: set telemetry.listen to 0.0.0.0:9464 to be scraped and probed
# (/live, /ready), and admin.listen with [admin.tls] to be administered from outside.

# ---- build ----------------------------------------------------------------------------------------------------------
FROM rust:1.95-bookworm AS build

# The C sources of aws-lc and jemalloc need the C compiler and make of this image; on x86-64 and ARM64 neither CMake nor
# clang, because the bindings come with the crate.
WORKDIR /src
COPY . .

# Debug information stays out of the image; function names stay in, for readable backtraces.
ENV CARGO_PROFILE_DIST_STRIP=debuginfo
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

# SIGTERM, which `docker stop` sends, drains; give it at least server.drain_timeout (docker stop -t 35).
ENTRYPOINT ["/usr/local/bin/portcullis"]
CMD ["run"]
