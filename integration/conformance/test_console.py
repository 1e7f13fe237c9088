"""config.md#process: terminal and consoleSize, by a console socket and by the caller's own terminal."""

import array
import fcntl
import os
import pty
import select
import socket
import struct
import termios
import time

import oci
import pytest


class Console:
    """A socket that is sent the master of a terminal."""

    def __init__(self, world):
        self.path = world.path("console")
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(self.path)
        self.server.listen()
        self.server.settimeout(oci.PATIENCE)
        world.undo.callback(self.server.close)
        self.world = world

    def receive(self):
        peer, _ = self.server.accept()
        with peer:
            peer.settimeout(oci.PATIENCE)
            _, ancillary, _, _ = peer.recvmsg(4096, socket.CMSG_SPACE(64))
        fds = array.array("i")
        for _, _, content in ancillary:
            fds.frombytes(content[:len(content) // 4 * 4])
        assert len(fds) == 1, list(fds)
        self.world.undo.callback(os.close, fds[0])
        return fds[0]


def read_all(fd, seconds=5, until=None):
    """What the terminal shows until its other end is closed, or until these bytes have come."""
    text, end = b"", time.monotonic() + seconds
    while time.monotonic() < end and not (until and until in text):
        if not select.select([fd], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(fd, 4096)
        except OSError:
            break
        if not data:
            break
        text += data
    return text.decode().replace("\r\n", "\n")


def on_console(world, program, patch=None):
    """Runs a program with a terminal; what it shows there."""
    console = Console(world)
    box = world.container(program, patch).patch({"process": {"terminal": True}})
    box.create("--console-socket", console.path).ok()
    master = console.receive()
    box.start().ok()
    return read_all(master).strip()


def test_a_terminal_is_on_the_three_streams(world):
    """config.md#process: if terminal is true, a pseudoterminal is the process's three standard streams."""
    assert on_console(world, "for i in 0 1 2; do [ -t $i ] && echo $i; done") == "0\n1\n2"


def test_no_terminal_by_default(world):
    """config.md#process: terminal defaults to false."""
    assert world.output("[ -t 1 ] && echo terminal || echo none", {"process": {"terminal": None}}) == "none"


def test_it_is_the_controlling_terminal(world):
    """config.md#process: the terminal is the process's own: /dev/tty opens it."""
    assert on_console(world, "echo through > /dev/tty") == "through"


def test_it_is_of_the_containers_devpts(world):
    """config-linux.md#default-devices: the terminal is of the container's devpts, so that it has a name in there."""
    assert on_console(world, "tty") in ("/dev/pts/0", "/dev/console")


def test_console_is_the_terminal(world):
    """config-linux.md#default-devices: with terminal, /dev/console is set up by binding the terminal to it."""
    assert on_console(world, "echo there > /dev/console; stat -c %t /dev/console") == "there\n88"


def test_console_size(world):
    """config.md#process: consoleSize is the size of the terminal."""
    assert on_console(world, ["probe", "size"], {"process": {"consoleSize": {"height": 33, "width": 99}}}) == "99 33"


def test_console_size_without_a_terminal_is_ignored(world):
    """config.md#process: runtimes MUST ignore consoleSize if terminal is false or unset."""
    assert world.output(["echo", "fine"], {"process": {"consoleSize": {"height": 33, "width": 99}}}) == "fine"


def test_the_terminal_belongs_to_the_user(world):
    """config.md#process: the process's user can use its terminal."""
    text = on_console(world, "echo mine > $(tty); stat -c %u $(tty)", {"process": {"user": {"uid": 1000, "gid": 1000}}})
    assert text == "mine\n1000"


def test_what_is_typed_arrives(world):
    """config.md#process: the terminal goes both ways."""
    console = Console(world)
    box = world.container("read line; echo \"<$line>\"", {"process": {"terminal": True}})
    box.create("--console-socket", console.path).ok()
    master = console.receive()
    box.start().ok()
    os.write(master, b"typed\n")
    assert "<typed>" in read_all(master)


def test_a_new_size_is_told(world):
    """config.md#process: a change of the terminal's size reaches the process as SIGWINCH."""
    console = Console(world)
    box = world.container("trap 'probe size; exit' WINCH; echo ready; while :; do sleep 0.05; done", {"process": {"terminal": True}})
    box.create("--console-socket", console.path).ok()
    master = console.receive()
    box.start().ok()
    read_all(master, until=b"ready")
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 21, 43, 0, 0))
    assert "43 21" in read_all(master)


def test_a_hang_up_is_told(world):
    """config.md#process: when the master is closed, the process gets SIGHUP as from any terminal."""
    console = Console(world)
    box = world.container("trap 'echo > /tmp/hup; exit' HUP; echo ready; while :; do sleep 0.05; done", {"process": {"terminal": True}})
    box.create("--console-socket", console.path).ok()
    master = os.dup(console.receive())
    box.start().ok()
    read_all(master, until=b"ready")
    os.close(master)
    console.world.undo.close()
    box.wait()
    assert os.path.exists(f"{box.rootfs}/tmp/hup")


def test_a_terminal_needs_a_console_socket(world):
    """config.md#process: a terminal that create has no one to hand to cannot be given, and is an error."""
    world.container(["true"], {"process": {"terminal": True}}).create().fails()


@pytest.mark.parametrize("kind", ["missing", "file", "deaf"])
def test_a_console_socket_that_is_none(world, kind):
    """runtime.md#errors: a console socket that cannot be reached is an error, and leaves nothing."""
    path = world.path("console")
    if kind == "file":
        world.file("console")
    if kind == "deaf":
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).bind(path)
    box = world.container(["true"], {"process": {"terminal": True}})
    box.create("--console-socket", path).fails()
    box.query().fails()


def test_run_uses_the_callers_terminal(world):
    """config.md#process: run in the foreground joins the process's terminal to the caller's, as all runtimes do."""
    box = world.container("[ -t 0 ] && tty && exit 3", {"process": {"terminal": True}})
    box.write()
    box.touched = True
    pid, master = pty.fork()
    if pid == 0:
        os.execv(world.runtime.path, [world.runtime.path, "--root", world.root, "run", "--bundle", box.bundle, box.id])
    text = read_all(master, seconds=10)
    os.close(master)
    assert "/dev/" in text and os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
