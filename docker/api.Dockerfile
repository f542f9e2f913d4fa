# The image of the API, worker-io and the operator's commands: everything that needs no torch.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
COPY requirements /requirements
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir -c /requirements/constraints.txt -r /requirements/web.in

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --create-home bootlora && install -d -o bootlora -g bootlora /scratch
COPY --from=packages /venv /venv
WORKDIR /app
COPY shared shared
COPY api api
COPY workers workers
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000
# Gunicorn's heartbeat files go to memory, because the root file system may be read-only.
CMD ["gunicorn", "--bind", "0.0.0.0:8000", "--workers", "2", "--worker-class", "api.server.Worker", "--threads", "16", \
     "--no-control-socket", "--worker-tmp-dir", "/dev/shm", "--graceful-timeout", "20", "api.wsgi:app"]
