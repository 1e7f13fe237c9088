"""bundle.md: what a container is made from."""

import json
import os
import shutil

import pytest


def test_config_json_is_required(world):
    """bundle.md#container-format: a bundle MUST contain config.json."""
    box = world.container()
    box.create_again().fails()
    box.query().fails()


def test_config_json_is_in_the_root_of_the_bundle(box):
    """bundle.md#container-format: config.json MUST lie in the root of the bundle directory."""
    box.write()
    os.mkdir(f"{box.bundle}/config")
    shutil.move(f"{box.bundle}/config.json", f"{box.bundle}/config/config.json")
    box.create_again().fails()


@pytest.mark.parametrize("name", ["Config.json", "config.JSON", "config"])
def test_the_name_of_config_json_is_exact(box, name):
    """bundle.md#container-format: the file MUST be named config.json."""
    box.write()
    shutil.move(f"{box.bundle}/config.json", f"{box.bundle}/{name}")
    box.create_again().fails()


def test_a_bundle_must_exist(box):
    """runtime.md#create: a path that is no bundle MUST be refused."""
    box.cli("create", "--bundle", f"{box.bundle}/none", box.id).fails()
    box.query().fails()


def test_a_bundle_is_a_directory(world, box):
    """bundle.md#container-format: a bundle is a directory, so a file MUST be refused."""
    box.cli("create", "--bundle", world.file("bundle"), box.id).fails()
    box.query().fails()


def test_a_bundle_may_be_given_relative_to_the_working_directory(world):
    """runtime.md#create: the path to the bundle is relative to the caller's working directory."""
    box = world.container(["echo", "here"])
    box.write()
    out = box.cli("run", "--bundle", os.path.basename(box.bundle), box.id).ok()
    assert out.line == "here"


def test_the_bundle_is_the_working_directory_by_default(world):
    """runtime.md#create: without --bundle the command line takes the working directory."""
    box = world.container(["echo", "here"])
    box.write()
    assert box.cli("run", box.id, cwd=box.bundle).ok().line == "here"


def test_the_root_filesystem_is_the_bundles(world):
    """bundle.md#container-format: the directory that root.path names is the container's root."""
    box = world.container("cat /mark")
    with open(f"{box.rootfs}/mark", "w") as file:
        file.write(box.id)
    assert box.run().ok().out == box.id


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\0", '{"ociVersion": "1.0.2",}'], ids=["empty", "cut", "list", "null", "nul", "comma"])
def test_config_json_is_an_object(box, text):
    """bundle.md#container-format: a config.json that is no JSON object MUST be refused."""
    with open(f"{box.bundle}/config.json", "w") as file:
        file.write(text)
    box.create_again().fails()
    box.query().fails()


def test_config_json_is_utf_8(box):
    """glossary.md#json: configuration JSON MUST be encoded in UTF-8."""
    box.config["hostname"] = "b\xf6x"
    with open(f"{box.bundle}/config.json", "wb") as file:
        file.write(json.dumps(box.config, ensure_ascii=False).encode("latin-1"))
    box.create_again().fails()


def test_unknown_members_are_ignored(box):
    """spec.md#extensibility: an unknown property MUST NOT be an error."""
    box.patch({"org.example": {"x": 1}, "process": {"xyz": True}, "linux": {"xyz": []}})
    box.run().ok()


def test_unicode_survives(world):
    """glossary.md#json: strings are UTF-8 from the configuration to the program."""
    assert world.output(["echo", "gr\xfc\xdfe \U0001f41a"]) == "gr\xfc\xdfe \U0001f41a"


def test_the_bundle_is_not_changed(world):
    """runtime.md#lifecycle: a container's life leaves the bundle's configuration alone."""
    box = world.container()
    box.write()
    with open(f"{box.bundle}/config.json") as file:
        before = file.read()
    box.run().ok()
    with open(f"{box.bundle}/config.json") as file:
        assert file.read() == before
