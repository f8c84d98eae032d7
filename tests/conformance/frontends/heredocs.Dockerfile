FROM base
RUN <<EOF
set -e
mkdir -p /opt/made
echo "first" > /opt/made/a
echo "second $HOME" > /opt/made/b
EOF
COPY <<-"END" <<OTHER /etc/made/
	literal $PATH
END
path is $PATH
OTHER
RUN <<'ONE' sh && cat <<TWO > /two
echo from one > /one
ONE
from two
TWO
