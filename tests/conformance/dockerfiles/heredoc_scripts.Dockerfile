FROM debian:bookworm-slim
RUN <<EOF
set -e
apt-get update
apt-get install -y curl
EOF
RUN <<SCRIPT
#!/usr/bin/env bash
echo "made by $0"
SCRIPT
RUN bash <<-'EOT' && echo done
	echo "$HOME"
	EOT
RUN cat <<A <<B > /both
a
A
b
B
COPY <<one.txt <<-"two.txt" /etc/
first of $PATH
one.txt
	second \$PATH
	two.txt
ADD <<three /three
3
three
