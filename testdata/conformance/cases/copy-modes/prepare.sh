chmod 0 a.txt; chmod 7777 d/e.txt; chmod 2755 d/f; chmod 400 d/f/g.txt; chmod 000 d/.hidden
