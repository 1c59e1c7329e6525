# Processes of a step that has no network speak with each other, and with nobody else,
# whatever another thread does to an address or a descriptor meanwhile.
import asyncio, ctypes, os, select, socket, struct, sys, threading, urllib.parse

there = urllib.parse.urlsplit(sys.argv[1])

def serve(server, count):
    if os.fork() == 0:
        for _ in range(count):
            connection, _ = server.accept()
            connection.sendall(connection.recv(100).upper())
            connection.close()
        os._exit(0)
    server.close()

def ask(family, address):
    client = socket.socket(family)
    client.connect(address)
    client.sendall(b"asked")
    answer = client.recv(100)
    end = client.recv(100)
    return answer + end

def listening(family, address):
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(address)
    server.listen()
    return server, server.getsockname()[1]

server, port = listening(socket.AF_INET, ("127.0.0.1", 0))
serve(server, 3)
print("four", ask(socket.AF_INET, ("127.0.0.1", port)))
print("mapped", ask(socket.AF_INET6, ("::ffff:127.0.0.1", port)))

async def later():
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"later")
    return await reader.read()
print("later", asyncio.run(later()))

server, port = listening(socket.AF_INET6, ("::1", 0))
serve(server, 1)
print("six", ask(socket.AF_INET6, ("::1", port)))
server, port = listening(socket.AF_INET6, ("::", 0))
serve(server, 1)
print("both", ask(socket.AF_INET, ("127.0.0.1", port)))
server = socket.socket()
server.listen()
port = server.getsockname()[1]
serve(server, 1)
print("unbound", ask(socket.AF_INET, ("127.0.0.1", port)))
while True:
    try:
        os.wait()
    except ChildProcessError:
        break

def failing(what, action):
    try:
        action()
        print(what, "worked")
    except OSError as error:
        print(what, "failed")

failing("closed", lambda: ask(socket.AF_INET, ("127.0.0.1", port)))
failing("machine", lambda: ask(socket.AF_INET, (there.hostname, there.port)))
failing("fast", lambda: socket.socket().sendto(b"x", 0x20000000, (there.hostname, there.port)))
failing("packets", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).bind(("eth0", 0)))
failing("datagram", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)))
failing("vsock", lambda: socket.socket(40, socket.SOCK_STREAM).connect((2, 1)))

# Connects while another thread changes the address between a socket of Unix and the machine.
libc = ctypes.CDLL(None, use_errno=True)
def inet(port, ip):
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(ip))
unix = struct.pack("=H", socket.AF_UNIX) + b"/nowhere\0".ljust(14, b"\0")
far = inet(there.port, "127.0.0.1")
room = ctypes.create_string_buffer(unix, 16)
done = False
def change_address():
    while not done:
        ctypes.memmove(room, far, 16)
        ctypes.memmove(room, unix, 16)
thread = threading.Thread(target=change_address)
thread.start()
reached = 0
for _ in range(1500):
    client = socket.socket()
    if libc.connect(client.fileno(), room, 16) == 0:
        reached += 1
    client.close()
done = True
thread.join()
print("changed address", reached)

# Connects while another thread changes what the descriptor is.
done = False
slot = os.dup(0)
def change_descriptor():
    one = socket.socket(socket.AF_UNIX)
    while not done:
        other = socket.socket()
        os.dup2(other.fileno(), slot)
        os.dup2(one.fileno(), slot)
        other.close()
thread = threading.Thread(target=change_descriptor)
thread.start()
address = ctypes.create_string_buffer(far, 16)
reached = sum(libc.connect(slot, address, 16) == 0 for _ in range(1500))
done = True
thread.join()
print("changed descriptor", reached)
