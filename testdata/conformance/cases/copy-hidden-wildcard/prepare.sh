mkdir -p e/g; chmod 711 e/g
