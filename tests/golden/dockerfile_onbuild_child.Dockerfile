FROM onbuild
RUN ["true"]
MAINTAINER somebody
