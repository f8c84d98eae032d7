FROM alpine:3.22
ARG a.b=1 _x=2 UPPER_lower1=3
RUN echo ${a} $_x $UPPER_lower1
ENV E1="a b" E2='c d' E3=e\ f E4="q\"q" E5=a"b"c'd' E6="${_x}$_x" E7=$undefined
RUN echo $E1 ${E5:-x}
ENV K v with $E1 and "quotes"
