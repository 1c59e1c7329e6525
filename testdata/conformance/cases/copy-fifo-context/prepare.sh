mkfifo d/p; chmod 622 d/p
