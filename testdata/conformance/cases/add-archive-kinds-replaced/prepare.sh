umask 022
mkdir -p s/d/sub s/empty
echo one > s/d/f; echo two > s/d/sub/g; chmod 4755 s/d/f; chmod 750 s/d/sub
ln s/d/f s/d/hard; ln -s f s/d/soft; ln -s /etc s/abs; mkfifo s/pipe
chown 11:22 s/d/sub/g s/pipe; chown -h 33:44 s/d/soft; chown 55:66 s/empty
touch -d '2003-04-05 06:07:08' s/d/f s/d/sub s/empty
tar --sort=name -cf a.tar -C s d empty
rm -r s
