mkdir -p q/r; echo 1 > q/r/f; tar cf a.tar q/r/f; rm -r q
