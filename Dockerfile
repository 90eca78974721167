# syntax=docker/dockerfile:1

# Build: the same toolchain as rust-toolchain.toml.
FROM rust:1.95-slim-bookworm AS build
# Debian keeps only the newest version of a stable release's package: one that is pinned is gone with
# the next fix of it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package dispatch-worker --bin dispatch \
    && install -D target/release/dispatch /out/dispatch

# Run: git for worktrees, ssh for repositories elsewhere, bubblewrap to confine agents where the
# container may make namespaces, tini to reap what agents leave behind, nothing else. Agents are added
# by an image of your own: deploy/agents.Dockerfile shows how.
FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap ca-certificates git openssh-client tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 dispatch \
    && useradd --system --uid 10001 --gid dispatch --create-home --home-dir /home/dispatch dispatch \
    && install -d -o dispatch -g dispatch /var/lib/dispatch /projects
COPY --from=build /out/dispatch /usr/local/bin/dispatch
COPY LICENSE-MIT LICENSE-APACHE NOTICE /usr/share/doc/dispatch/
# By number: an orchestrator that refuses root cannot look names up.
USER 10001:10001
WORKDIR /var/lib/dispatch
# Where a worker keeps its worktrees and stores.
ENV HOME=/home/dispatch DISPATCH_DATA=/var/lib/dispatch
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "--", "dispatch"]
CMD ["--help"]
