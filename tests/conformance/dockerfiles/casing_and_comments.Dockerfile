# a comment first
from alpine:3.22 as Base
# Base is what everything starts from
run echo lower \
  # inside
  && echo more
env A=1 \

  B=2
FROM base AS last
copy --from=BASE /etc/passwd /p
Copy --from=0 /etc/group /g
Label One=1 Two="2" Three='$A'
maintainer Somebody <some@example.com>
