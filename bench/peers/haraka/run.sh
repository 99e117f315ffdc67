mkdir -p queue config/dkim/acme.example
ln -s @cache@/haraka/node_modules node_modules
# What `haraka -i` puts into a new folder, where nothing else is said.
cp -n node_modules/Haraka/config/*.ini config
cp dkim-rsa.pem config/dkim/acme.example/private
printf s1 > config/dkim/acme.example/selector
# Haraka's wiki, "Performance Tuning": the kernel spreads connections, and more threads for what waits on the disk.
export NODE_CLUSTER_SCHED_POLICY=none UV_THREADPOOL_SIZE=32
exec node node_modules/Haraka/bin/haraka -c @folder@ > log 2>&1
