FROM alpine:3.22
COPY ./a/../b /b
COPY /abs/path /c
COPY a/./b //d//e/
COPY .hidden . 
COPY a b/ c/. /f/
ADD ./x.tar ./y/ /g/
