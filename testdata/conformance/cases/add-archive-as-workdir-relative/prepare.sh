echo 1 > f; tar cf a.tar f; rm f
