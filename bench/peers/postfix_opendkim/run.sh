cat milter.cf >> main.cf
mkdir -p queue state milter
chown postfix state milter dkim-rsa.pem
/usr/sbin/opendkim -x opendkim.conf
while [ ! -S milter/opendkim.sock ]; do sleep 0.1; done
exec /usr/sbin/postfix -c @folder@ start-fg
