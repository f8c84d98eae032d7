FROM scratch AS empty
ENV A=b
FROM empty
WORKDIR /x
COPY --link a /
COPY --link b /
