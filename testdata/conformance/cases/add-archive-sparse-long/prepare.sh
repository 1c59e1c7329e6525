mkdir s; truncate -s 2M s/sparse; echo end >> s/sparse; n=$(printf 'l%.0s' $(seq 150)); mkdir -p s/$n/$n; echo 1 > s/$n/$n/f; ln -s $n/$n/$n s/lnk; tar -S --format=gnu -cf a.tar -C s .; rm -r s
