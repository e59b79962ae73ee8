# The server of mien. It runs as a user without rights and needs no network.
#   docker build -t mien .
#   docker run --rm -p 8000:8000 -e MIEN_TOKEN=secret mien
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY src src
RUN python -m venv /mien \
    && /mien/bin/pip install --no-cache-dir --no-compile ".[serve]" \
    && rm -rf /mien/lib/python3.12/site-packages/pip* /mien/bin/pip*

FROM python:3.12-slim
COPY --from=build /mien /mien
RUN useradd --system --no-create-home mien
USER mien
ENV PATH=/mien/bin:$PATH PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["mien", "serve", "--host", "0.0.0.0", "--port", "8000"]
