FROM python:3.13-slim AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG NB_USER="jovyan"
ARG NB_UID="1000"
ARG NB_GID="100"
USER root
ENV NB_USER="${NB_USER}" NB_UID=${NB_UID} NB_GID=${NB_GID} HOME="/home/${NB_USER}"
RUN useradd --no-log-init --create-home --shell /bin/bash --uid "${NB_UID}" "${NB_USER}"
USER ${NB_UID}
WORKDIR "${HOME}"
RUN --mount=type=bind,source=environment.yml,target=/tmp/environment.yml cat /tmp/environment.yml | tee env
COPY --chown=${NB_UID}:${NB_GID} notebooks/ "${HOME}/work/"
ENTRYPOINT ["tini", "-g", "--"]
CMD ["start-notebook.py"]
EXPOSE 8888
