echo 1 > f; tar cf a.tar f; echo 2 > f; tar rf a.tar f; rm f; mkdir f; echo 3 > f/g; tar rf a.tar f; rm -r f
