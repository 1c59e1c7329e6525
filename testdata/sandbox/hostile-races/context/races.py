"""Changes the tree while paths are walked, in the hope that one of them leaves it."""
import ctypes, os, threading

SECRET = os.environ["SECRET_PATH"]
WORD = b"canary" + b"-"
libc = ctypes.CDLL(None)
os.makedirs("/race/one/two/three/four")
os.makedirs("/race/flat")
os.makedirs("/race/away" + os.path.dirname(SECRET))
with open("/race/away" + SECRET, "w") as file:
    file.write("inside")
os.symlink("/race/away", "/race/link")
os.symlink("/" + "../" * 30, "/race/up")
os.symlink("/proc/self/root", "/race/magic")
done = threading.Event()
found = []

def swap(one, two):
    while not done.is_set():
        libc.renameat2(-100, one.encode(), -100, two.encode(), 2)

def move():
    while not done.is_set():
        for way in [("/race/one/two/three", "/race/flat/three"), ("/race/flat/three", "/race/one/two/three")]:
            try:
                os.rename(*way)
            except OSError:
                pass

threads = [
    threading.Thread(target=swap, args=("/race/link", "/race/up")),
    threading.Thread(target=swap, args=("/race/flat", "/race/magic")),
    threading.Thread(target=move),
]
for thread in threads:
    thread.start()
deep = os.open("/race/one", os.O_RDONLY)
paths = [
    "/race/link" + SECRET,
    "/race/up" + SECRET,
    "/race/magic" + SECRET,
    "/race/flat/.." + SECRET,
    "/race/one/two/three/four/../../../../../../../.." + SECRET,
    "/race/flat/three/four/../../../../../.." + SECRET,
]
for number in range(3000):
    path = paths[number % len(paths)]
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        continue
    if WORD in os.read(fd, 4096):
        found.append(path)
    os.close(fd)
    try:
        fd = os.open("two/three/four/../../../../../../../.." + SECRET, os.O_RDONLY, dir_fd=deep)
    except OSError:
        continue
    if WORD in os.read(fd, 4096):
        found.append("by descriptor")
    os.close(fd)
done.set()
for thread in threads:
    thread.join()
print(sorted(set(found)))
