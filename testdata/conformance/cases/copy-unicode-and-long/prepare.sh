n=$(printf 'n%.0s' $(seq 200)); mkdir -p $n/$n/$n && echo long > $n/$n/$n/$n; ln -s $n/$n/$n/$n link-long
