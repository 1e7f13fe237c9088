# Looks for what the job before it has left.
import ctypes, os, socket

libc = ctypes.CDLL(None, use_errno=True)
found = []
for place in ("/tmp", "/dev/shm", "/work", "/box", "/dev", "/"):
    found += [f"{place}/{name}" for name in os.listdir(place) if "left" in name]
for place in ("/tmp", "/dev/shm", "/work"):
    found += os.listdir(place)
for name, get in (("shm", lambda: libc.shmget(0x1EF7, 0, 0)), ("msg", lambda: libc.msgget(0x1EF7, 0)), ("sem", lambda: libc.semget(0x1EF7, 0, 0))):
    if get() >= 0:
        found.append(name)
if ctypes.CDLL(None).mq_open(b"/left", os.O_RDONLY) >= 0:
    found.append("mq")
for name, family, address in (("abstract socket", socket.AF_UNIX, "\0left"), ("port", socket.AF_INET, ("127.0.0.1", 7777))):
    try:
        socket.socket(family).connect(address)
        found.append(name)
    except OSError:
        pass
found += [name for name in os.environ if name == "LEFT"]
found += [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()]
found += [line for line in open("/proc/keys")] if os.path.exists("/proc/keys") else []
print("\n".join(found) or "nothing")
