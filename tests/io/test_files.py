"""A file is whole or it is not there."""

import errno
import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from cryorefine.errors import UserError
from cryorefine.io.files import write_whole
from cryorefine.io.mrc import write_map, write_stack


def test_file_has_its_name_only_when_whole(tmp_path):
    target = tmp_path / "map.mrc"
    with write_whole(target) as temporary:
        temporary.write_bytes(b"half")
        assert not target.exists()
        assert temporary.parent == target.parent
        assert temporary.suffix == ".mrc"
    assert target.read_bytes() == b"half"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    target = tmp_path / "map.mrc"
    target.write_bytes(b"old")

    def fail():
        with write_whole(target) as temporary:
            temporary.write_bytes(b"new")
            raise failure

    with pytest.raises(failure):
        fail()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_two_threads_write_to_different_names(tmp_path):
    names = []
    barrier = threading.Barrier(2)

    def write():
        with write_whole(tmp_path / "a.star") as temporary:
            barrier.wait()
            names.append(temporary)
            temporary.write_text("x")

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 2
    assert str(os.getpid()) in names[0].name


def test_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(UserError, match=r"job001.*does not exist"),
        write_whole(tmp_path / "job001" / "a.mrc"),
    ):
        pass


def test_folder_in_the_place_of_the_file_is_named(tmp_path):
    with pytest.raises(UserError, match="is a folder"), write_whole(tmp_path):
        pass


def test_full_disk_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"a\.mrc.*no space"), write_whole(tmp_path / "a.mrc"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_less_than_an_array_is_one_sentence(tmp_path):
    """NumPy says so without the system's number of the error."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with (
        pytest.raises(UserError, match=r"a\.npy.*no space"),
        write_whole(tmp_path / "a.npy"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        np.save(full, np.zeros(100_000))


@pytest.mark.parametrize("write", [write_map, write_stack])
def test_a_map_that_grows_over_a_limit_is_one_sentence(tmp_path, write):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"a\.mrcs? cannot be written: files as large as this"):
            write(tmp_path / ("a.mrcs" if write is write_stack else "a.mrc"), np.zeros((32, 32, 32)), 1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_forbidden_place_is_one_sentence(tmp_path):
    with (
        pytest.raises(UserError, match=r"a\.mrc.*you may not write"),
        write_whole(tmp_path / "a.mrc") as temporary,
    ):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(temporary))


def test_errors_of_other_files_keep_their_traceback(tmp_path):
    with pytest.raises(PermissionError), write_whole(tmp_path / "a.mrc"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/elsewhere")
