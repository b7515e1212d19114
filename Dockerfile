# The service with the shipped captioner, on CPUs: docker build -t sightline . && docker run -p 8000:8000 sightline
FROM python:3.11-slim

WORKDIR /sightline
COPY requirements.txt .
# PyTorch's own index has CPU builds, a tenth of the size of those on PyPI. The pair must come from one index.
RUN grep -E '^torch(vision)?==' requirements.txt > torch.txt \
    && pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -r torch.txt \
    && pip install --no-cache-dir -r requirements.txt

COPY model model
COPY service service
COPY checkpoints checkpoints

RUN useradd --no-create-home sightline
USER sightline
ENV CAPTION_BIND=0.0.0.0:8000
EXPOSE 8000
HEALTHCHECK --start-period=30s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz')"]
CMD ["gunicorn", "-c", "service/gunicorn_config.py", "service.app:create_app()"]
