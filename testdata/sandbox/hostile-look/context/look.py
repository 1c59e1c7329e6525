"""Looks for the operator's secrets wherever a process can look."""
import os, re

WORD = b"canary" + b"-"
found = []

def look(where, content):
    for match in re.finditer(WORD + rb"[a-z]+", content):
        found.append((where, match.group().decode()))

def read(path, limit=1 << 20):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        return os.read(fd, limit)
    except OSError:
        return b""
    finally:
        os.close(fd)

def memory(pid):
    for line in read(f"/proc/{pid}/maps").decode(errors="replace").splitlines():
        start, end = (int(number, 16) for number in line.split(" ")[0].split("-"))
        if not line.split(" ")[1].startswith("rw"):
            continue
        try:
            with open(f"/proc/{pid}/mem", "rb", 0) as file:
                file.seek(start)
                look(f"memory of {pid}", file.read(min(end - start, 64 << 20)) or b"")
        except (OSError, OverflowError, ValueError):
            pass

def links(folder):
    try:
        return [f"{folder}/{name}" for name in os.listdir(folder)]
    except OSError:
        return []

secret = os.environ.get("SECRET_PATH", "/nowhere")
look("the environment", repr(dict(os.environ)).encode())
look("the path", read(secret))
own = str(os.getpid())
for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
    for name in ["environ", "cmdline", "mountinfo", "maps", "status", "stack", "auxv"]:
        look(f"{name} of {pid}", read(f"/proc/{pid}/{name}"))
    for way in ["root", "cwd"]:
        look(f"{way} of {pid}", read(f"/proc/{pid}/{way}{secret}"))
        look(f"{way} of {pid}", read(f"/proc/{pid}/{way}/.docker/config.json"))
    for link in links(f"/proc/{pid}/fd") + links(f"/proc/{pid}/map_files"):
        if pid != own:
            look(link, read(link))
            look(link, read(link + secret))
    if pid != own:
        memory(pid)
for line in read("/proc/self/mountinfo").decode().splitlines():
    for path in line.split(" ")[3:5]:
        look(path, read(path + secret))
        for folder, _, names in os.walk(path) if "environments-" in path else []:
            for name in names:
                look(folder, read(os.path.join(folder, name), 4096))
for top in ["/root", "/home", "/run", "/tmp", "/var", "/etc", "/dev/shm", "/mnt", "/srv", "/opt", "/.docker"]:
    for folder, _, names in os.walk(top):
        for name in names:
            look(folder, read(os.path.join(folder, name), 65536))
keys = read("/proc/keys")
look("keys", keys)
print(sorted(set(found)))
