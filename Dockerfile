# One file, two targets: `api` (no torch) and `worker` (with torch).
#   docker build --target api -t cherry-api .
#   docker build --target worker -t cherry-worker .

FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 HF_HUB_OFFLINE=1
RUN useradd --create-home --uid 10001 cherry && mkdir -p /data && chown cherry /data
WORKDIR /srv/cherry
COPY pyproject.toml constraints.txt README.md ./
COPY alembic.ini ./
COPY app app
COPY graders graders
COPY methods methods
COPY migrations migrations
COPY workers workers
ENV CHERRY_DATA_DIR=/data CHERRY_HOST=0.0.0.0

FROM base AS api
RUN pip install --constraint constraints.txt '.[graders]'
USER cherry
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz')"]
CMD ["cherry", "api"]

FROM base AS worker
# Triton compiles what starts its kernels.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN pip install --constraint constraints.txt '.[train,graders]'
# Compiled kernels outlive the container.
ENV NUMBA_CACHE_DIR=/data/kernels TRITON_CACHE_DIR=/data/kernels/triton
USER cherry
CMD ["cherry", "worker"]
