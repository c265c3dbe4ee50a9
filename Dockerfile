# Two images from one file:
#   docker build --target trainer   -t hybrid-trainer .
#   docker build --target dashboard -t hybrid-dashboard .     (no torch inside)
# They share a volume of runs; a run directory is the whole interface between them. Sockets and dashboard listen on
# loopback only, so both containers use the host's network:
#   docker run --network host -v runs:/runs hybrid-trainer
#   docker run --network host -v runs:/runs hybrid-dashboard
FROM python:3.11-slim AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
RUN useradd --create-home --uid 10001 hybrid && mkdir /runs && chown hybrid:hybrid /runs
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY trainer_core trainer_core
COPY app app
VOLUME /runs

FROM base AS trainer
RUN pip install '.[train]' -c constraints.txt
USER hybrid
WORKDIR /home/hybrid
ENTRYPOINT ["hybrid"]
CMD ["train", "digits", "--run-dir", "/runs/digits"]

FROM base AS dashboard
RUN pip install '.[dashboard]' -c constraints.txt && ! python -c 'import torch' 2>/dev/null
USER hybrid
WORKDIR /home/hybrid
ENTRYPOINT ["hybrid"]
CMD ["dashboard", "/runs", "--no-browser"]
