# syntax=docker/dockerfile:1
# One image for every part: `serve`, `worker` and `migrate` are commands of the same program.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches survive between builds; the program is copied out of them into a layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked \
    && install -D target/release/bullwark /out/bullwark

FROM debian:bookworm-slim
# Certificates are for calling providers and webhooks over HTTPS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin bullwark \
    && install -d -o bullwark -g bullwark /data
COPY --from=build /out/bullwark /usr/local/bin/bullwark

# Uploads and exports. A new volume mounted here belongs to the user, as the directory does.
ENV BULLWARK_DATA_DIR=/data
ENV BULLWARK_HTTP_ADDR=0.0.0.0:8080
VOLUME /data
EXPOSE 8080
USER bullwark

# The record answers. Whether the process itself lives, the container runtime knows.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=4 \
    CMD ["bullwark", "jobs", "list", "--limit", "1", "--json"]
ENTRYPOINT ["bullwark"]
CMD ["serve"]
