# docker build -t normsniff . && docker run --rm -p 127.0.0.1:8420:8420 --read-only --tmpfs /tmp normsniff
FROM python:3.13-slim AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --wheel-dir /wheels '.[serve]'

FROM python:3.13-slim
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index /wheels/*.whl \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin normsniff
USER 10001
EXPOSE 8420
# Bodies lie in /tmp while they are looked at: with a read-only root, mount a tmpfs or a volume there.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8420/healthz', timeout=4).read()"]
ENTRYPOINT ["normsniff"]
CMD ["serve", "--host", "0.0.0.0"]
