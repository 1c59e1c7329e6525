"""System calls that programs of all kinds make, and what they leave."""
import ctypes, errno, fcntl, mmap, os, select, stat

libc = ctypes.CDLL(None, use_errno=True)
os.makedirs("/c/d")
os.chdir("/c")

def name(error):
    return errno.errorcode.get(error, error)

def refused(what, action):
    try:
        print(what, action())
    except OSError as error:
        print(what, name(error.errno))

# io_uring_setup
result = libc.syscall(425, 8, ctypes.create_string_buffer(120))
print("io_uring", "refused" if result < 0 and ctypes.get_errno() in (errno.ENOSYS, errno.EPERM) else "allowed")

# Files without a name, swapped names, shared memory, holes.
fd = os.open("/c", os.O_TMPFILE | os.O_RDWR, 0o640)
os.write(fd, b"unnamed")
libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, b"/c/named", 0x400)
print(open("/c/named").read(), oct(os.stat("/c/named").st_mode))
open("one", "w").write("1")
open("two", "w").write("2")
libc.renameat2(-100, b"one", -100, b"two", 2)
print(open("one").read(), open("two").read())
libc.renameat2(-100, b"one", -100, b"two", 1) == -1 and print("noreplace", name(ctypes.get_errno()))
with open("map", "wb+") as file:
    file.truncate(8192)
    with mmap.mmap(file.fileno(), 8192) as memory:
        memory[4096:4101] = b"hello"
print(open("map", "rb").read()[4096:4101])
with open("sparse", "wb") as file:
    file.seek(5 << 20)
    file.write(b"end")
os.posix_fallocate(os.open("allocated", os.O_CREAT | os.O_RDWR, 0o600), 0, 4096)
with open("sparse", "rb") as source, open("copied", "wb") as target:
    os.sendfile(target.fileno(), source.fileno(), 5 << 20, 3)
    os.copy_file_range(source.fileno(), target.fileno(), 3, 5 << 20)
print(open("copied", "rb").read())

# Modes, owners, masks.
os.umask(0o027)
os.mkdir("masked")
os.mknod("node", 0o666 | stat.S_IFREG)
os.mkfifo("fifo")
os.umask(0)
os.mkdir("shared", 0o2777)
os.chown("shared", 7, 8)
os.chmod("shared", 0o2777)
os.mkdir("shared/below")
open("shared/file", "w")
for path in ["masked", "node", "fifo", "shared/below", "shared/file"]:
    found = os.stat(path)
    print(path, oct(found.st_mode), found.st_uid, found.st_gid)
os.mkdir("closed", 0)
open("closed/file", "w").write("x")
os.chmod("closed/file", 0)
print(open("closed/file").read(), os.access("closed/file", os.R_OK), os.access("closed/file", os.X_OK))
open("set", "w").close()
os.chown("set", 3, 3)
os.chmod("set", 0o6755)
os.chown("set", 4, 4)
print("bits after chown", oct(os.stat("set").st_mode))
os.symlink("nowhere", "link")
os.chown("link", 5, 6, follow_symlinks=False)
os.utime("link", (1, 1000000000), follow_symlinks=False)
found = os.lstat("link")
print(found.st_uid, found.st_gid, int(found.st_mtime), os.readlink("link"))
os.setxattr("one", "user.note", b"kept")
print(os.getxattr("one", "user.note"), os.listxattr("one"))
refused("no attribute", lambda: os.getxattr("two", "user.note"))

# By descriptors and odd names.
directory = os.open("d", os.O_PATH | os.O_DIRECTORY)
os.close(os.open("inside", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=directory))
os.fchmod(os.open("d/inside", os.O_RDONLY), 0o4700)
print(oct(os.stat("inside", dir_fd=directory).st_mode))
os.rename("inside", "renamed", src_dir_fd=directory, dst_dir_fd=directory)
os.fchdir(directory)
print(os.getcwd(), os.listdir("."))
os.chdir("/c")
for odd in [b"new\nline", b"\xff\xfe", "ü".encode(), b"x" * 255, b" ", b"back\\slash"]:
    os.close(os.open(b"/c/d/" + odd, os.O_CREAT | os.O_WRONLY, 0o644))
refused("long name", lambda: os.stat("/c/" + "x" * 256))
deep = "/c/deep" + "/" + "/".join(["x" * 100] * 30)
os.makedirs(deep)
os.chdir(deep)
print(len(os.getcwd()), os.path.realpath(".") == deep)
os.chdir("/c")
os.symlink("loop", "loop")
refused("loop", lambda: os.open("loop", os.O_RDONLY))
refused("above", lambda: os.path.samefile("/../../../c", "/c"))
os.symlink("/../../c/one", "up")
print(open("up").read())
refused("trailing", lambda: os.stat("/c/one/"))
refused("missing", lambda: os.stat("/c/none/x"))
refused("no directory", lambda: os.rmdir("/c/one"))
refused("full", lambda: os.rmdir("/c/d"))
refused("exists", lambda: os.mkdir("/c/d"))

# Locks, events, pipes.
with open("one") as first, open("one") as second:
    fcntl.flock(first, fcntl.LOCK_EX)
    refused("lock", lambda: fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB))
watch = libc.inotify_init1(0)
libc.inotify_add_watch(watch, b"/c/d", 0x100)
open("/c/d/watched", "w").close()
print("event", bool(select.select([watch], [], [], 5)[0]))
refused("chroot", lambda: os.chroot("/c/d") or os.listdir("/").__contains__("watched"))
