chmod 700 d; chmod 711 d/f; chmod 4755 d/e.txt; chmod 1777 d/f; touch -d '2001-02-03 04:05:06' d/f d/e.txt
