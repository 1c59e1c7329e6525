mkdir -p a/b/c; echo 1 > a/b/c/f; chmod 711 a/b; tar cf a.tar a/b/c/f; rm -r a
