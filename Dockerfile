# The service with the shipped captioner, for CPUs. It only writes to /tmp and /dev/shm:
#   docker build --tag sightline . && docker run --read-only --tmpfs /tmp --publish 8000:8000 sightline
FROM python:3.11-slim-bookworm

LABEL org.opencontainers.image.title="Sightline" \
      org.opencontainers.image.description="Image captioning with attention maps; the weights are for non-commercial research and education" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT AND LicenseRef-weights-non-commercial"

WORKDIR /sightline
COPY requirements.txt all.txt
# Without the packages that only training needs. PyTorch's own index has CPU-only builds, a tenth of the size of
# those on PyPI. torch and torchvision must come from the same index; they satisfy the pins of the second install.
RUN grep -vE '^(matplotlib|pycocoevalcap)==' all.txt > requirements.txt \
    && grep -E '^torch(vision)?==' requirements.txt > torch.txt \
    && pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -r torch.txt \
    && pip install --no-cache-dir -r requirements.txt \
    && rm all.txt torch.txt

COPY LICENSE .
COPY checkpoints/default checkpoints/default
COPY examples examples
COPY model model
COPY service service

# Return large allocations to the system: the allocator's adaptive threshold would retain the memory of large photos
# in every thread (figures in docs/deployment.md). The root file system may be read-only, so Python writes no .pyc.
ENV CAPTION_BIND=0.0.0.0:8000 \
    MALLOC_MMAP_THRESHOLD_=8000000 \
    MALLOC_ARENA_MAX=2 \
    PYTHONDONTWRITEBYTECODE=1
# Numeric, so that Kubernetes can verify runAsNonRoot.
USER 10001:10001
# Fail the build if the checkpoint cannot caption. One worker, whatever the number of cores of the build machine.
RUN ["env", "CAPTION_WORKERS=1", "python", "-m", "service.doctor"]

EXPOSE 8000
STOPSIGNAL SIGTERM
# Readiness rather than liveness: a container that responds but cannot caption is unhealthy; one with a full queue is
# not. http.client rather than urllib, which would use a proxy from the environment.
HEALTHCHECK --start-period=60s --interval=30s --timeout=10s CMD ["python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8000, timeout=8); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["gunicorn", "-c", "service/gunicorn_config.py", "service.app:create_app()"]
