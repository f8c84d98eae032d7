FROM mcr.example.com/windows-like:1
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
RUN curl x | sh
CMD start
ENTRYPOINT run "it"
HEALTHCHECK CMD test -f /ok
FROM alpine:3.22
SHELL ["/bin/ash", "-c"]
RUN ["/bin/ash", "-c", "echo exec"]
ENTRYPOINT exec top
