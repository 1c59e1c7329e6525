chmod 6755 d/e.txt; chmod 2755 d/f
