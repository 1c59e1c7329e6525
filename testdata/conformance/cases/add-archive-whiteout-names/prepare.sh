mkdir s; : > s/.wh.x; : > s/.wh..wh..opq; : > s/y; tar cf a.tar -C s .; rm -r s
