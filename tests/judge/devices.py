# The default devices, and what masks a path, are nodes of the host's: they work, and nothing of a node can be changed.
import errno
import mmap
import os


def refused(act, *arguments, expected=errno.EROFS):
    try:
        act(*arguments)
    except OSError as error:
        assert error.errno == expected, (arguments, error)
    else:
        raise SystemExit(f"{arguments} went through")


names = ["null", "zero", "full", "random", "urandom", "tty"]
for path in [f"/dev/{name}" for name in names] + ["/proc/keys"]:
    refused(os.utime, path)
    refused(os.utime, path, (1, 1))
    refused(os.chmod, path, 0o600)
    refused(os.chown, path, 1000, 1000)
    refused(os.setxattr, path, "user.mark", b"x")

open("/dev/null", "w").write("x")
open("/dev/zero", "ab").write(b"x")
open("/proc/keys", "w").write("x")
assert open("/dev/null").read() == "" and open("/proc/keys").read() == ""
assert open("/dev/zero", "rb").read(9) == bytes(9)
assert len(open("/dev/urandom", "rb").read(9)) == len(open("/dev/random", "rb").read(9)) == 9
refused(os.write, os.open("/dev/full", os.O_WRONLY), b"x", expected=errno.ENOSPC)
refused(os.open, "/dev/tty", os.O_RDWR, expected=errno.ENXIO)
assert all(os.access(f"/dev/{name}", os.R_OK | os.W_OK) for name in names)
mmap.mmap(os.open("/dev/zero", os.O_RDWR), 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
