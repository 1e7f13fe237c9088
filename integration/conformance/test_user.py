"""config.md#user."""

import os

import pytest

IDS = "grep -E '^(Uid|Gid|Groups):' /proc/self/status"


def ids(world, patch):
    rows = {}
    for line in world.output(IDS, {"process": {"user": patch}}).splitlines():
        name, _, values = line.partition(":")
        rows[name] = values.split()
    return rows


@pytest.mark.parametrize("uid", [0, 1, 1000, 65534, 4294967294])
def test_uid(world, uid):
    """config.md#posix-platform-user: uid is the user id in the container, real, effective, saved and of the file system."""
    assert ids(world, {"uid": uid, "gid": 0})["Uid"] == [str(uid)] * 4


@pytest.mark.parametrize("gid", [0, 1, 1000, 65534])
def test_gid(world, gid):
    """config.md#posix-platform-user: gid is the group id in the container, real, effective, saved and of the file system."""
    assert ids(world, {"uid": 0, "gid": gid})["Gid"] == [str(gid)] * 4


def test_additional_gids(world):
    """config.md#posix-platform-user: additionalGids are added to the process."""
    assert set(ids(world, {"uid": 5, "gid": 6, "additionalGids": [7, 8, 70000]})["Groups"]) >= {"7", "8", "70000"}


def test_no_other_groups(world):
    """config.md#posix-platform-user: the process has the groups of the configuration, none of the caller's."""
    box = world.container(IDS, {"process": {"user": {"uid": 5, "gid": 6}}})
    box.write()
    box.touched = True
    argv = ["python3", "-c", "import os,sys; os.setgroups([4242]); os.execv(sys.argv[1], sys.argv[1:])",
            world.runtime.path, "--root", world.root, "run", "--bundle", box.bundle, box.id]
    line = next(line for line in world.command(argv).ok().lines if line.startswith("Groups:"))
    assert "4242" not in line.split()


@pytest.mark.parametrize("umask", [0, 0o22, 0o27, 0o77, 0o777])
def test_umask(world, umask):
    """config.md#posix-platform-user: umask is that of the process."""
    assert int(world.output("umask", {"process": {"user": {"umask": umask}}}), 8) == umask


def test_the_umask_makes_files(world):
    """config.md#posix-platform-user: umask counts for the files that the process makes."""
    box = world.container("echo > /file", {"process": {"user": {"umask": 0o137}}})
    box.run().ok()
    assert os.stat(f"{box.rootfs}/file").st_mode & 0o777 == 0o640


@pytest.mark.parametrize("patch", [{"uid": -1}, {"gid": -1}, {"uid": 4294967296}, {"uid": "root"}, {"additionalGids": [-1]}], ids=str)
def test_what_is_no_id(world, patch):
    """config.md#posix-platform-user: uid, gid and additionalGids are unsigned numbers of 32 bits."""
    world.container(patch={"process": {"user": patch}}).run().fails()


def test_another_user_owns_what_it_makes(world):
    """config.md#posix-platform-user: without a user namespace ids are those of the host."""
    box = world.container("echo > /tmp/file", {"process": {"user": {"uid": 1234, "gid": 4321}}})
    box.run().ok()
    data = os.stat(f"{box.rootfs}/tmp/file")
    assert (data.st_uid, data.st_gid) == (1234, 4321)


def test_another_user_is_not_root(world):
    """config.md#posix-platform-user: a process of another user may not do what root may."""
    out = world.container("echo x > /file || echo refused", {"process": {"user": {"uid": 1234, "gid": 4321}}}).run()
    assert "refused" in out.out


def test_no_entry_in_passwd_is_needed(world):
    """config.md#posix-platform-user: names are left to others; an id needs no entry in /etc/passwd."""
    box = world.container(["id", "-u"], {"process": {"user": {"uid": 77, "gid": 78}}})
    os.unlink(f"{box.rootfs}/etc/passwd")
    assert box.run().ok().line == "77"


def test_a_script_of_another_user_can_write_its_streams(world):
    """config.md#posix-platform-user: the process's user can use the streams that it was given."""
    assert world.output("echo out > /dev/stdout; echo done", {"process": {"user": {"uid": 1234, "gid": 4321}}}).endswith("done")
