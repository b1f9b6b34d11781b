# docker build -t srpipe .
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" srpipe enhance scan.tif scan-x2.tif
#
# No --shm-size is needed: tiles travel through memory without a name (memfd), not through /dev/shm, whose
# 64 MB in containers do not matter. It counts as the container's memory (--memory), which srpipe respects.
# Job folders are beside the output, or, for URLs, in the cache: give both a volume to go on after a restart.

FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/srpipe
ENV PATH=/opt/srpipe/bin:$PATH
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY models models
COPY srpipe srpipe
# EXTRAS=[remote] for URLs, [remote,ray] for a node of a Ray cluster.
ARG EXTRAS=[remote]
RUN pip install --no-cache-dir ".${EXTRAS}"

FROM python:3.12-slim
COPY --from=build /opt/srpipe /opt/srpipe
# Open to any --user; what is compiled and measured once is kept here.
RUN useradd --create-home --uid 1000 srpipe \
    && mkdir -p /cache /data \
    && chown srpipe:srpipe /cache /data \
    && chmod 1777 /cache
ENV PATH=/opt/srpipe/bin:$PATH \
    SRPIPE_CACHE=/cache \
    NUMBA_CACHE_DIR=/cache/numba \
    PYTHONUNBUFFERED=1
USER srpipe
VOLUME /cache
WORKDIR /data
ENTRYPOINT ["srpipe"]
CMD ["--help"]
