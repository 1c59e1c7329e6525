mkdir -p e/f/g; chmod 750 e/f
