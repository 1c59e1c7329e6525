mkdir -p d/e; chmod 1777 d; chmod 500 d/e; chown 5:6 d; echo 1 > d/e/f; tar cf a.tar d; rm -r d
