# One package: /deb/package.deb into the tree /target, and into dpkg's database there, as `dpkg --unpack` would.
# Runs on busybox alone, for a package of any architecture. What a package's maintainer scripts would do is not done.
set -euo pipefail
cd /deb
members=$(ar t package.deb)
case $members in
  *data.tar.xz*control.tar*|*control.tar*data.tar.xz*) ;;
  *) echo "package.deb holds $(echo $members): only .tar.xz can be unpacked" >&2; exit 1 ;;
esac
control=/tmp/control
mkdir -p $control
ar p package.deb control.tar.xz | tar -xJ -C $control

field() { sed -n "s/^$1: *//p" $control/control; }
name=$(field Package)
info=/target/var/lib/dpkg/info
key=$name
[ "$(field Multi-Arch)" != same ] || key=$name:$(field Architecture)  # dpkg's name where two architectures may be there

# The files, and their list: what `dpkg --listfiles` shows.
ar p package.deb data.tar.xz | tar -xJpv --numeric-owner -C /target | sed 's,^\.,,; s,/$,,; s,^$,/.,' > "$info/$key.list"
# The rest of the control archive goes there too: checksums, configuration files, and the scripts, for later.
for file in $control/*; do
  [ "$file" = $control/control ] || cp -p "$file" "$info/$key.${file##*/}"
done

# Its paragraph. A package without a script that would configure it is installed; others have only been unpacked, which
# is dpkg's own word for what `dpkg --configure` may finish.
state=installed
[ ! -e $control/postinst ] || state=unpacked
{
  echo "Package: $name"
  echo "Status: install ok $state"
  sed '/^Package:/d; /^$/d' $control/control
  if [ -e $control/conffiles ]; then
    echo "Conffiles:"
    grep '^/' $control/conffiles | while read -r file; do
      echo " $file $(md5sum "/target$file" | cut -d' ' -f1)"
    done
  fi
  echo
} > "/target/var/lib/dpkg/status.d/$key"
