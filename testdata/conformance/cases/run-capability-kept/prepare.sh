echo 1 > f; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 f; tar --xattrs --xattrs-include='*' -cf a.tar f; rm f
