# Its user is compiled in by name: it is this namespace's own. Nothing runs as root, so the given configuration is taken.
cp /etc/passwd passwd
cp /etc/group group
echo "Debian-exim:x:972:972::/nonexistent:/usr/sbin/nologin" >> passwd
echo "Debian-exim:x:972:" >> group
mount --bind passwd /etc/passwd
mount --bind group /etc/group
mkdir -p spool log
chown Debian-exim: spool log dkim-rsa.pem
exec @cache@/exim4-daemon-light/usr/sbin/exim4 -C @folder@/exim.conf -bdf -q1m
