FROM base
COPY --nothing a b
