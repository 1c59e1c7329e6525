import socket, sys, urllib.parse

def tried(what, action):
    try:
        action()
        print(what, "reached")
    except OSError:
        print(what, "failed")

there = urllib.parse.urlsplit(sys.argv[1])
tcp = lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)
udp = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
tried("mirror", lambda: tcp().connect((there.hostname, there.port)))
tried("far", lambda: tcp().connect(("192.0.2.1", 80)))
tried("far datagram", lambda: udp().sendto(b"x", ("192.0.2.1", 53)))
tried("far six", lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)))
left, right = socket.socketpair()
left.sendall(b"x")
print("pair", right.recv(1).decode())
server = socket.socket(socket.AF_UNIX)
server.bind("/tmp/s")
server.listen()
client = socket.socket(socket.AF_UNIX)
client.connect("/tmp/s")
print("local reached")
