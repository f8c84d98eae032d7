# All packages, unpacked on top of each other in /unpacked, become the one layer /target. RELEASED is the time of the index.
set -eu
cp -a /unpacked/. /target
cd /target

# dpkg reads one file.
dpkg=var/lib/dpkg
cat $dpkg/status.d/* > $dpkg/status
rm -r $dpkg/status.d
mkdir -p $dpkg/alternatives $dpkg/triggers $dpkg/updates
: > $dpkg/available
echo 1 > $dpkg/info/format

# What images cannot do without, of what the maintainer scripts would have done. Each stands for the script it names.
if [ -e usr/share/base-passwd/passwd.master ]; then      # base-passwd.postinst
  for name in passwd group; do cp usr/share/base-passwd/$name.master etc/$name; done
fi
if [ -e usr/share/base-files/profile ]; then             # base-files.postinst
  cp usr/share/base-files/profile etc/profile
  cp usr/share/base-files/dot.profile root/.profile
  cp usr/share/base-files/dot.bashrc root/.bashrc
  mkdir -p mnt srv opt media etc/opt var/opt
  rmdir var/run var/lock
  ln -s /run var/run
  ln -s /run/lock var/lock
  mkdir -p -m 1777 run/lock
fi
if [ -e usr/bin/mawk ] && [ ! -e usr/bin/awk ]; then     # mawk.postinst: update-alternatives
  mkdir -p etc/alternatives
  ln -s /usr/bin/mawk etc/alternatives/awk
  ln -s /etc/alternatives/awk usr/bin/awk
fi
if [ -d usr/share/ca-certificates ]; then                # ca-certificates.postinst
  mkdir -p etc/ssl/certs
  find usr/share/ca-certificates -name '*.crt' | sort | xargs cat > etc/ssl/certs/ca-certificates.crt
fi

# Files have the times that their packages give them; whatever was made just now has that of the index. So the same
# packages are the same layer, whenever it is made.
touch -d "@$RELEASED" /tmp/released
find . -newer /tmp/released -exec touch -h -d "@$RELEASED" {} +
