echo 1 > f; tar --owner=app:4000 --group=nosuch:5000 -cf a.tar f; rm f
