# The service with the captioner that ships, on CPUs. It writes to /tmp and /dev/shm alone:
#   docker build --tag sightline . && docker run --read-only --tmpfs /tmp --publish 8000:8000 sightline
FROM python:3.11-slim-bookworm

LABEL org.opencontainers.image.title="Sightline" \
      org.opencontainers.image.description="An image captioner that shows its work; its weights are for non-commercial research and education" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT AND LicenseRef-weights-non-commercial"

WORKDIR /sightline
COPY requirements.txt all.txt
# Only what serves and captions. PyTorch's own index has CPU builds, a tenth of the size of those on PyPI; the
# pair must come from one index, and satisfies the same pins when the rest is installed.
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

# Bytes from which memory is given back once it is free: the allocator's own, growing threshold keeps what large
# photographs took, once for every thread (docs/deployment.md has the figures). The root file system may be
# read-only, so Python must not try to keep compiled files beside the sources.
ENV CAPTION_BIND=0.0.0.0:8000 \
    MALLOC_MMAP_THRESHOLD_=8000000 \
    MALLOC_ARENA_MAX=2 \
    PYTHONDONTWRITEBYTECODE=1
# By number: Kubernetes can tell only of a number that it is not root.
USER 10001:10001
# An image whose checkpoint does not caption is not built. How many cores build it does not matter.
RUN ["env", "CAPTION_WORKERS=1", "python", "-m", "service.doctor"]

EXPOSE 8000
STOPSIGNAL SIGTERM
# Ready, not only alive: one that answers but does not caption is unhealthy. A full queue is ready.
# No proxy of the environment is asked, as urllib would.
HEALTHCHECK --start-period=60s --interval=30s --timeout=10s CMD ["python", "-c", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8000, timeout=8); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
CMD ["gunicorn", "-c", "service/gunicorn_config.py", "service.app:create_app()"]
