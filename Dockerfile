# The image of one worker. Build: docker build -t rowmill .
FROM python:3.12-slim AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/ requirements/
RUN python -m venv /opt/rowmill \
    && /opt/rowmill/bin/pip install --require-hashes -r requirements/run.txt
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes -r requirements/build.txt
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/rowmill/bin/pip install --no-deps /wheels/*.whl \
    && /opt/rowmill/bin/pip check

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home --home-dir /var/lib/rowmill rowmill \
    && install -d -o rowmill -g rowmill /var/lib/rowmill/outputs
COPY --from=build /opt/rowmill /opt/rowmill
ENV PATH=/opt/rowmill/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ROWMILL_HTTP_HOST=0.0.0.0 \
    ROWMILL_HTTP_PORT=9464
USER 10001
WORKDIR /var/lib/rowmill
EXPOSE 9464
# Unhealthy is who makes no turn although the database answers, not who waits for a database.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 CMD ["python", "-c", \
    "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"ROWMILL_HTTP_PORT\"]}/healthz', timeout=4)"]
# Stop claiming, finish or hand back within the grace period, exit 0. A second one exits at once.
STOPSIGNAL SIGTERM
ENTRYPOINT ["rowmill"]
CMD ["run"]
