ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH"
WORKDIR /build
COPY requirements*.txt ./
RUN pip install -r requirements.txt
COPY pyproject.toml README.md ./
COPY src src
RUN pip install .

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="api" \
      org.opencontainers.image.source="https://git.example.com/api"
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
COPY --from=build /opt/venv /opt/venv
RUN useradd --system --uid 1001 api
USER 1001
WORKDIR /srv
EXPOSE 8000
CMD gunicorn -b 0.0.0.0:8000 api.app:main
