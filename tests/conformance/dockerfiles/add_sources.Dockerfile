FROM alpine:3.22
ADD rootfs.tar.gz /
ADD --unpack=false rootfs.tar.xz /archives/
ADD --unpack=true https://files.example.com/pkg.tar.gz /opt/
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://files.example.com/data.bin /data/
ADD --chown=10:20 --chmod=0600 https://files.example.com/a%20b/secret.key?x=1 /etc/
ADD https://git.example.com/org/repo.git#v1.2:sub /src/repo
ADD --keep-git-dir=true https://git.example.com/org/other.git#main /src/other
ADD git@git.example.com:org/private.git /src/private
ADD --exclude=*.tmp https://git.example.com/org/repo.git?tag=v2&subdir=docs /docs
ADD --link dir1 dir2 /dirs/
ADD https://files.example.com/ /index
