# Leaves everything that a program can leave.
import ctypes, os, socket, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)
for place in ("/tmp", "/dev/shm", "/work", "/box", "/dev", "/"):
    try:
        open(f"{place}/left", "w").write("left")
        os.chmod(f"{place}/left", 0o666)
    except OSError:
        pass
libc.shmget(0x1EF7, 4096, 0o1666)
libc.msgget(0x1EF7, 0o1666)
libc.semget(0x1EF7, 1, 0o1666)
ctypes.CDLL(None).mq_open(b"/left", os.O_CREAT | os.O_RDWR, 0o666, None)
listener = socket.socket(socket.AF_UNIX)
listener.bind("\0left")
listener.listen()
port = socket.socket()
port.bind(("127.0.0.1", 7777))
port.listen()
os.set_inheritable(listener.fileno(), True)
os.environ["LEFT"] = "left"
subprocess.Popen(["sleep", "600"], start_new_session=True, close_fds=False,
                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("left")
