mkdir -p s/real; ln -s real s/l; tar cf a.tar -C s real l; rm s/l; mkdir s/l; echo 1 > s/l/f; tar rf a.tar -C s l/f; rm -r s
