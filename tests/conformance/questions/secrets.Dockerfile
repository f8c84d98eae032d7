ARG TOKEN_ID=token
FROM base AS one
ARG TOKEN_ID
RUN --mount=type=secret,id=$TOKEN_ID true
RUN --mount=type=secret,target=/root/.netrc,required=true true
RUN --mount=type=ssh true
FROM one AS two
RUN --mount=type=ssh,id=deploy,required true
RUN --mount=type=secret,id=env,env=WORD true
RUN --mount=type=cache,target=/root/.cache,sharing=locked true
ADD git@example.com:a/b.git#main /b
