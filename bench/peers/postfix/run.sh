mkdir -p queue state
chown postfix state
exec /usr/sbin/postfix -c @folder@ start-fg
