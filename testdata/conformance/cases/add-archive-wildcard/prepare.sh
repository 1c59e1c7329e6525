echo 1 > one; echo 2 > two; tar cf a.tar one; tar cf b.tar two; mkdir dir; cp a.tar dir; rm one two
