# escape=`
FROM base
RUN echo one `
  # a comment in between
    two `

    > /lines
ENV PLACE=C:\Users
RUN echo "$PLACE" > /place
COPY ["lock", "/a file"]
