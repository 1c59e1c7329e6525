"""Tries to change what is mounted for reading only."""
import mmap, os, shutil

done = []
wheel = "/wheels/" + sorted(os.listdir("/wheels"))[0]

def attempt(what, action):
    try:
        action()
        done.append(what)
    except OSError:
        pass

for path in ["/ctx/kept", wheel, "/word", "/etc/hosts"]:
    attempt(f"open {path}", lambda: os.open(path, os.O_WRONLY))
    attempt(f"append {path}", lambda: os.open(path, os.O_RDWR | os.O_APPEND))
    attempt(f"truncate {path}", lambda: os.truncate(path, 0))
    attempt(f"mode {path}", lambda: os.chmod(path, 0o4777))
    attempt(f"owner {path}", lambda: os.chown(path, 1, 1))
    attempt(f"time {path}", lambda: os.utime(path, (1, 1)))
    attempt(f"link {path}", lambda: os.link(path, "/tmp/linked"))
    attempt(f"reopen {path}", lambda: os.write(os.open(f"/proc/self/fd/{os.open(path, os.O_RDONLY)}", os.O_RDWR), b"x"))
    attempt(f"map {path}", lambda: mmap.mmap(os.open(path, os.O_RDONLY), 1, mmap.MAP_SHARED, mmap.PROT_WRITE))
for folder in ["/ctx", "/wheels"]:
    attempt(f"create in {folder}", lambda: os.open(folder + "/new", os.O_CREAT | os.O_WRONLY))
    attempt(f"folder in {folder}", lambda: os.mkdir(folder + "/folder"))
    attempt(f"link in {folder}", lambda: os.symlink("/", folder + "/link"))
    attempt(f"nameless in {folder}", lambda: os.open(folder, os.O_TMPFILE | os.O_WRONLY))
    attempt(f"rename in {folder}", lambda: os.rename(folder + "/" + os.listdir(folder)[0], "/tmp/renamed"))
    attempt(f"remove in {folder}", lambda: os.unlink(folder + "/" + os.listdir(folder)[0]))
    attempt(f"attribute of {folder}", lambda: os.setxattr(folder, "user.x", b"x"))
os.symlink("/ctx/kept", "/tmp/there")
attempt("through a link", lambda: os.open("/tmp/there", os.O_WRONLY))
os.unlink("/tmp/there")
print(done)
