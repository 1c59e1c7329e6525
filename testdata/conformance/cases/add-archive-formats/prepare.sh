umask 022
mkdir -p s/d/sub s/empty
echo one > s/d/f; echo two > s/d/sub/g; chmod 4755 s/d/f; chmod 750 s/d/sub
ln s/d/f s/d/hard; ln -s f s/d/soft; ln -s /etc s/abs; mkfifo s/pipe
chown 11:22 s/d/sub/g s/pipe; chown -h 33:44 s/d/soft; chown 55:66 s/empty
touch -d '2003-04-05 06:07:08' s/d/f s/d/sub s/empty
rm s/pipe; n=$(printf 'n%.0s' $(seq 90)); mkdir -p s/$n; echo l > s/$n/$n
for f in gnu pax ustar; do tar --sort=name --format=$f -cf $f.tar -C s .; done; rm -r s/$n; tar --format=v7 -cf v7.tar -C s .; rm -r s
