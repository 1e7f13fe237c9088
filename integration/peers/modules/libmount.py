"""
The little of python3-libmount that crun's tests of mounts use, which Debian 12 does not package: a table of mounts read from
a file in the form of /proc/PID/mountinfo, and the options of one of them (proc(5)).
"""


class _Mount:
    def __init__(self, line):
        fields = line.rstrip("\n").split(" ")  # a source may be empty
        self.target, self.vfs_options = fields[4], fields[5]
        self.fs_options = fields[fields.index("-", 6) + 3]


class Table:
    def __init__(self, path):
        with open(path) as file:
            self._mounts = [_Mount(line) for line in file if line.strip()]

    def find_target(self, target):
        """The topmost mount on `target`, or None."""
        return next((mount for mount in reversed(self._mounts) if mount.target == target), None)
