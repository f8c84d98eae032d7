FROM alpine:3.22
RUN --mount=type=secret,id=token,env=TOKEN curl -H "Authorization: $TOKEN" https://example.com
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc,mode=0440,uid=3,gid=4,required npm ci
RUN --mount=type=secret,source=aws,target=relative/aws cat relative/aws
RUN --mount=type=ssh git clone git@example.com:me/private.git
RUN --mount=type=ssh,id=deploy,required=true,mode=0666,uid=1 ssh deploy@example.com
RUN --mount=type=secret,id=both,target=/x,env=BOTH true
