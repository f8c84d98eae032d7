ARG VCS_REF
ARG BUILD_DATE
FROM alpine:3.22
ARG VCS_REF
ARG BUILD_DATE
LABEL org.opencontainers.image.revision=$VCS_REF org.opencontainers.image.created=${BUILD_DATE}
LABEL "com.example.vendor"="ACME Incorporated"
LABEL multi.label1="value1" multi.label2="value2" other="value3"
LABEL description="This text illustrates \
that label-values can span multiple lines."
LABEL legacy one two
VOLUME /data /logs
VOLUME ["/json"]
