"""The keeper of one program: a script of its own, which only the standard library's fast part is loaded for.

It takes rights away, starts the program, watches the clock and the number of processes, kills what is left, and prints
one line of JSON. It is never imported; `sandbox.py` starts it.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
NOBODY = 65534
LOOK_EVERY = 0.05


def libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def main() -> None:
    request = json.loads(sys.argv[1])
    c = libc()
    if c:
        c.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # the run may be killed
        c.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of the program come to us
    isolated = bool(c and request["namespaces"] and unshared(c))
    heard, said = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            become(request, c, isolated, said)
        except BaseException as error:
            os.write(2, f"the program could not be started: {error!r}\n".encode())
        finally:
            os._exit(125)
    os.close(said)
    stopped, status = watch(child, request["seconds"], request["processes"])
    os.set_blocking(heard, False)
    try:
        text = os.read(heard, 256).decode("ascii", "replace")
    except BlockingIOError:
        text = ""
    print(json.dumps({"stopped": stopped, "status": status, "said": text, "isolated": isolated}))


def unshared(c: ctypes.CDLL) -> bool:
    """Into namespaces of our own: no network device but a loopback that is down, and our own process numbers."""
    user, group = os.geteuid(), os.getegid()
    if c.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC):
        return False
    for name, text in (("setgroups", "deny"), ("gid_map", f"{NOBODY} {group} 1"), ("uid_map", f"{NOBODY} {user} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    return True


def become(request: dict, c: ctypes.CDLL | None, isolated: bool, said: int) -> None:
    """Turn into the program: the first process of its namespace, with limits and without rights."""
    os.setsid()
    if c:
        c.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if c and isolated:
        closed_off(c, request["folder"])
    os.chdir(request["folder"])  # anew, to stand on the mount that may be written
    limit(request, isolated)
    if c:
        c.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(said, 3)  # where the last line of the program writes
    os.execve(sys.executable, [sys.executable, "-I", "-B", request["program"]], {})


def closed_off(c: ctypes.CDLL, folder: str) -> None:
    """All files read-only but those of its own folder, and a /proc that shows its own processes alone.

    Each step may be refused (an old kernel, a container); the program then runs with what there is.
    """

    def setattr_(path: str, flags: int, on: int, off: int) -> None:
        change = (ctypes.c_uint64 * 4)(on, off, 0, 0)
        c.syscall(MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, ctypes.byref(change), ctypes.sizeof(change))

    if c.unshare(CLONE_NEWNS) or c.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        return
    place = folder.encode()
    if c.mount(place, place, None, MS_BIND, None):
        return
    setattr_("/", AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0)
    setattr_(folder, 0, 0, MOUNT_ATTR_RDONLY)
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    if c.mount(b"proc", b"/proc", b"proc", flags, None):
        c.mount(b"tmpfs", b"/proc", b"tmpfs", flags, None)  # the run's own environment must not be seen


def limit(request: dict, isolated: bool) -> None:
    mebibyte = 1 << 20
    seconds = int(request["seconds"]) + 1
    wanted = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, request["file_mb"] * mebibyte),
        (resource.RLIMIT_NOFILE, request["open_files"]),
        (resource.RLIMIT_AS, request["memory_mb"] * mebibyte),
    ]
    if isolated and tuple(int(part) for part in os.uname().release.split(".")[:2] if part.isdigit()) >= (5, 14):
        # counted within the namespace since Linux 5.14, before over all the user has; threads count too
        wanted.append((resource.RLIMIT_NPROC, max(256, request["processes"])))
    for what, value in wanted:
        hard = resource.getrlimit(what)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(what, (value, value))
        except (ValueError, OSError):
            continue  # macOS knows no limit of the address space


def watch(child: int, seconds: float, processes: int) -> tuple[str | None, int]:
    """Wait for the program; why it was stopped, if it was, and its exit status. Leaves no process of it alive."""
    deadline = time.monotonic() + seconds
    handle = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    pause = 0.001
    stopped = None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        left = deadline - time.monotonic()
        if left <= 0:
            stopped = "time"
        elif len(family()) > processes:
            stopped = "processes"
        if stopped:
            os.kill(child, signal.SIGKILL)  # all of a process namespace die with its first process
            status = os.waitpid(child, 0)[1]
            break
        if handle is not None:
            select.select([handle], [], [], min(left, LOOK_EVERY))
        else:
            time.sleep(min(left, pause := min(pause * 2, 0.02)))
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # without namespaces: its group, then whoever left it
    for _ in range(100):
        rest = family()
        for process in rest:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            break
        time.sleep(0.005)
    return stopped, os.waitstatus_to_exitcode(status)


def family() -> list[int]:
    """Our children and theirs, by the kernel's lists; empty on systems without them."""
    found = []
    waiting = [os.getpid()]
    while waiting:
        process = waiting.pop()
        try:
            with open(f"/proc/{process}/task/{process}/children", encoding="ascii") as file:
                below = [int(word) for word in file.read().split()]
        except OSError:
            continue
        found += below
        waiting += below
    return found


if __name__ == "__main__":
    main()
