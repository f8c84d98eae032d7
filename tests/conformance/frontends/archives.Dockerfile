FROM base AS pack
WORKDIR /pack
COPY app app
RUN tar -cf /app.tar app && mkdir -p /repo/.git && echo ref > /repo/.git/HEAD
FROM base
COPY --from=pack /app.tar /
ADD docs/readme.md lock /added/
WORKDIR /unpacked
RUN tar -xf /app.tar && rm /app.tar
RUN ln -s app/lib/one.sh here && ln app/main.sh there && mknod pipe p && chmod 1777 /unpacked
RUN rm -rf /added/lock
