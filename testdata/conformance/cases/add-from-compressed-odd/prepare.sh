echo 1 > f; tar cf a.tar f; head -c 600 a.tar | gzip -n > two.gz; tail -c +601 a.tar | gzip -n >> two.gz; (cat a.tar; head -c 5000 /dev/zero) > pad.tar; head -c 1024 a.tar > short.tar; rm f a.tar
