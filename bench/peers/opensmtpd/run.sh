# Its users, its queue and its socket are compiled in: they are this namespace's own.
cp /etc/passwd passwd
cp /etc/group group
for name in opensmtpd:970 opensmtpq:971; do
    echo "${name%:*}:x:${name#*:}:${name#*:}::/nonexistent:/usr/sbin/nologin" >> passwd
    echo "${name%:*}:x:${name#*:}:" >> group
done
mkdir -p spool lib/opensmtpd/empty
mount --bind passwd /etc/passwd
mount --bind group /etc/group
mount --bind spool /var/spool
mount --bind lib /var/lib
mount -t tmpfs none /run
mkdir -p -m 0711 /var/spool/smtpd
exec @cache@/opensmtpd/usr/sbin/smtpd -d -f smtpd.conf
