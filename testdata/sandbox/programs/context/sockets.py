import os, socket, struct, threading

def peer(connection):
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, gid = struct.unpack("3i", data)
    return pid == os.getpid(), uid, gid

folder = "/" + "long/" * 18
os.makedirs(folder)
for path in ["/tmp/socket", folder + "socket", "\0abstract"]:
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    client = socket.socket(socket.AF_UNIX)
    thread = threading.Thread(target=lambda: client.connect(path))
    thread.start()
    accepted, _ = server.accept()
    thread.join()
    accepted.sendall(b"hello")
    print(client.recv(9).decode(), peer(client), client.getpeername() == path or path[0] == "\0")
    if path[0] == "/":
        os.unlink(path)
left, right = socket.socketpair()
socket.send_fds(left, [b"x"], [os.open("/etc/hostname", os.O_RDONLY)] if os.path.exists("/etc/hostname") else [0])
print(len(socket.recv_fds(right, 1, 1)[1]))
