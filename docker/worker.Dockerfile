# The image of worker-gpu and worker-cpu. The torch wheel contains its CUDA runtime; the host provides the driver (NVIDIA container
# toolkit).
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS packages
COPY requirements /requirements
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir torch==2.13.0 -c /requirements/constraints.txt
RUN /venv/bin/pip install --no-cache-dir -c /requirements/constraints.txt -r /requirements/worker.in

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --create-home bootlora && install -d -o bootlora -g bootlora /scratch
COPY --from=packages /venv /venv
WORKDIR /app
COPY shared shared
COPY models models
COPY workers workers
# A worker computes with one thread on a CPU; .env may set more. Models come from the operator's folders, never from a hub.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 HF_HOME=/tmp/huggingface \
    OMP_NUM_THREADS=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
CMD ["celery", "-A", "workers.tasks", "worker", "--loglevel", "INFO", "-Q", "gpu", "-c", "1", "-P", "prefork", \
     "-n", "gpu@%h", "--without-gossip", "--without-mingle"]
