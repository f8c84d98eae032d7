# escape=`
FROM alpine:3.22
ENV P=C:\dir\x Q=a`$b
RUN echo one `
    two `
    # a comment inside
    three
COPY a\b c:\d\
LABEL x="quoted ` here"
