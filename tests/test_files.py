"""Files are written as an ordinary write would: permissions, links, long names; and whole or not at all."""

import os
import stat
import threading

import pytest

from solvers.files import write_atomically


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_what_the_umask_allows(tmp_path, umask):
    write_atomically(tmp_path / "new", b"1")
    assert mode(tmp_path / "new") == 0o666 & ~umask


def test_a_file_that_is_there_keeps_its_permissions(tmp_path, umask):
    path = tmp_path / "old"
    path.write_bytes(b"0")
    path.chmod(0o640)
    write_atomically(path, b"1")
    assert (mode(path), path.read_bytes()) == (0o640, b"1")


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_a_link(tmp_path, there):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    if there:
        target.write_bytes(b"0")
    link.symlink_to(target)
    write_atomically(link, b"1")
    assert link.is_symlink()
    assert target.read_bytes() == b"1"
    assert [path.name for path in tmp_path.rglob("*") if path.name.startswith(".")] == []


def test_a_link_to_itself_is_no_file(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="symbolic links") as refused:
        write_atomically(tmp_path / "loop", b"1")
    assert refused.value.filename == str(tmp_path / "loop")


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "a" + "ä" * 127])
def test_the_longest_names_that_the_system_allows(tmp_path, name):
    write_atomically(tmp_path / name, b"1")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(OSError, match="name too long") as refused:
        write_atomically(tmp_path / (name + "aa"), b"1")
    assert refused.value.filename == str(tmp_path / (name + "aa"))


def test_what_is_no_regular_file_is_written_to(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_atomically(pipe, b"1")
    reader.join(timeout=5)
    assert read == [b"1"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_directory_is_not_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "folder", b"1")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
