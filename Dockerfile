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
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /var/lib/rowmill
# Stop claiming, finish or hand back within the grace period, exit 0. A second one exits at once.
STOPSIGNAL SIGTERM
ENTRYPOINT ["rowmill"]
CMD ["run"]
