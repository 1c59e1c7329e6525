echo 1 > f; touch -d '1965-01-01' f; echo 2 > g; touch -d '2100-01-01' g; echo 3 > h; touch -d '2001-01-01 00:00:00.75' h; tar --format=pax -cf a.tar f g h; rm f g h
