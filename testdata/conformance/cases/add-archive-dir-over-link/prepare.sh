mkdir d; echo 1 > d/f; tar cf a.tar d; rm -r d
