# check=skip=JSONArgsRecommended,StageNameCasing;experimental=all
FROM base AS Made
CMD echo x
ENV a b
COPY ignored.txt /
