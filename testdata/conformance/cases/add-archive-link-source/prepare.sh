echo 1 > f; tar cf a.tar f; rm f; ln -s a.tar l.tar; mkdir d; cp a.tar d; ln -s d ld
