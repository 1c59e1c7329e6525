"""Tries to end, trace and change the processes that the command has not started."""
import ctypes, os, resource, signal

libc = ctypes.CDLL(None, use_errno=True)
own = {os.getpid(), os.getppid()}
done = []
near = range(max(1, os.getpid() - 3000), os.getpid() + 300)
seen = {int(name) for name in os.listdir("/proc") if name.isdigit()}
for pid in sorted(seen | set(near) | set(range(1, 300))):
    if pid in own:
        continue
    try:
        os.kill(pid, 0)
    except OSError:
        # Where there is nothing to be seen there may still be something to be ended.
        for action in [signal.SIGKILL, signal.SIGSTOP]:
            try:
                os.kill(pid, action)
                done.append(("kill", pid))
            except OSError:
                pass
        continue
    # The first process of the namespace of this very command is its own.
    if pid == 1 and os.getppid() in (0, 1):
        continue
    for what, action in [
        ("signal", lambda: os.kill(pid, signal.SIGKILL)),
        ("trace", lambda: libc.ptrace(16, pid, 0, 0) and (_ for _ in ()).throw(OSError())),
        ("limit", lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (1, 1))),
        ("priority", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)),
    ]:
        try:
            action()
            done.append((what, pid))
        except OSError:
            pass
    try:
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        done.append(("handle", pid))
    except OSError:
        pass
print(done)
