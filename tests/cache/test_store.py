"""The cache on disk: what is damaged or missing is a miss, whoever else writes or dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportgen.cache import store as store_module
from reportgen.cache.digests import Digests, digest_of
from reportgen.cache.store import Store

LARGE = 3 * 2**20


def open_store(folder: Path, limit: int = 2**30) -> Store:
    return Store(folder / "cache", limit)


def objects_of(store: Store) -> list[Path]:
    return sorted(store.root.glob("objects/*/*"))


def record_all(store: Store, key: str, contents: list[bytes]) -> None:
    with store.writing():
        store.add_record(key, {"objects": [store.add(content) for content in contents]})


def test_a_content_comes_back(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with store.writing():
        digest = store.add(b"result")
    assert store.read(digest) == b"result"
    assert store.read(digest_of(b"other")) is None


@pytest.mark.parametrize("damage", [b"", b"x", b"resulx"])
def test_a_damaged_content_is_missing_and_is_written_again(tmp_path: Path, damage: bytes) -> None:
    store = open_store(tmp_path)
    with store.writing():
        digest = store.add(b"result")
        objects_of(store)[0].write_bytes(damage)
        assert store.read(digest) is None
        assert store.add(b"result") == digest
    assert store.read(digest) == b"result"


def test_a_large_file_is_stored_and_taken_without_a_copy(tmp_path: Path) -> None:
    store, file = open_store(tmp_path), tmp_path / "model.onnx"
    file.write_bytes(os.urandom(LARGE))
    digests = Digests(store.digests)
    with store.writing():
        digest = store.add_file(file, digests)
    assert store.take_file(digest, tmp_path / "out" / "model.onnx", digests)
    assert (tmp_path / "out" / "model.onnx").read_bytes() == file.read_bytes()
    # a hard link, or a clone where the file system has them
    inodes = {path.stat().st_ino for path in (file, tmp_path / "out/model.onnx")}
    assert len(inodes) == 1 or shares_blocks(tmp_path)


def shares_blocks(folder: Path) -> bool:
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True
    )
    return kind.stdout.strip() in {"btrfs", "xfs", "bcachefs", "zfs"}


def test_a_large_file_damaged_in_place_is_a_miss_also_through_a_report(tmp_path: Path) -> None:
    store, file = open_store(tmp_path), tmp_path / "model.onnx"
    file.write_bytes(os.urandom(LARGE))
    with store.writing():
        digest = store.add_file(file, Digests(store.digests))
    with objects_of(store)[0].open("r+b") as stream:
        stream.seek(LARGE // 2)
        stream.write(b"damage")
    again = Digests(store.digests)  # those of the next build
    assert not store.take_file(digest, tmp_path / "copy", again)
    assert not (tmp_path / "copy").exists()


def test_a_small_file_is_copied_so_that_edits_of_a_report_do_not_reach_the_cache(
    tmp_path: Path,
) -> None:
    store, file = open_store(tmp_path), tmp_path / "layers.csv"
    file.write_bytes(b"a,b\n")
    digests = Digests(store.digests)
    with store.writing():
        digest = store.add_file(file, digests)
    assert store.take_file(digest, tmp_path / "copy", digests)
    (tmp_path / "copy").write_bytes(b"edited")
    assert store.read(digest) == b"a,b\n"


def test_a_large_file_is_hashed_once(tmp_path: Path) -> None:
    file, notes = tmp_path / "weights", tmp_path / "digests"
    file.write_bytes(os.urandom(17 * 2**20))
    os.utime(file, ns=(0, 0))
    time.sleep(2.1)  # its ctime must be older than what a coarse file system distinguishes
    digest = Digests(notes).of_file(file)
    [note] = notes.iterdir()
    changed = note.stat().st_mtime_ns
    assert Digests(notes).of_file(file) == digest
    assert note.stat().st_mtime_ns == changed
    with file.open("r+b") as stream:
        stream.write(b"other")
    os.utime(file, ns=(0, 0))  # the time of its last change does not give it away
    assert Digests(notes).of_file(file) != digest


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"objects": []}', b"\xff\xfe"])
def test_a_damaged_record_is_skipped(tmp_path: Path, damage: bytes) -> None:
    store = open_store(tmp_path)
    record_all(store, "key", [b"one"])
    record_all(store, "key", [b"two"])
    [(newest, _), (older, _)] = store.records("key")
    newest.write_bytes(damage)
    assert [path for path, _ in store.records("key")] == [older]


def test_no_more_than_sixteen_records_have_one_key(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for number in range(20):
        record_all(store, "key", [b"%d" % number])
    kept = {store.read(record["objects"][0]) for _, record in store.records("key")}
    assert kept == {b"%d" % number for number in range(4, 20)}


def test_what_was_used_least_recently_is_deleted_first(tmp_path: Path) -> None:
    store = open_store(tmp_path, limit=50_000)
    for number in range(8):
        record_all(store, f"key{number}", [bytes([number]) * 10_000])
        for path, _ in store.records(f"key{number}"):
            os.utime(path, ns=(number, number))
    for path, _ in store.records("key0"):
        os.utime(path, ns=(100, 100))  # used again
    store.evict()
    kept = [number for number in range(8) if list(store.records(f"key{number}"))]
    assert kept == [0, 5, 6, 7]
    assert store.size() <= 50_000
    assert {path.name for path in objects_of(store)} == {
        digest_of(bytes([number]) * 10_000) for number in kept
    }


def test_a_content_of_two_records_stays_until_both_are_deleted(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    record_all(store, "one", [b"shared"])
    record_all(store, "two", [b"shared"])
    for path, _ in store.records("one"):
        path.unlink()
    store.evict()
    assert store.read(digest_of(b"shared")) == b"shared"


def test_nothing_is_deleted_while_another_build_writes(tmp_path: Path) -> None:
    store = open_store(tmp_path, limit=1)
    with store.writing():
        digest = store.add(b"no record refers to this yet")
        store.evict()
        assert store.read(digest) is not None
    store.evict()
    assert store.read(digest) is None


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, file = open_store(tmp_path), tmp_path / "model.onnx"
    file.write_bytes(os.urandom(LARGE))

    def clone(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[: LARGE // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "clone_or_link", clone)
    with store.writing(), pytest.raises(OSError, match="No space"):
        store.add_file(file, Digests(store.digests))
    assert objects_of(store) == []


_WRITER = """
import sys
from pathlib import Path
from reportgen.cache.store import Store
store = Store(Path(sys.argv[1]), 2**30)
number = 0
while True:
    number += 1
    with store.writing():
        contents = [b"%d of %d " % (part, number) * 20_000 for part in range(3)]
        store.add_record(f"key{number % 4}", {"objects": [store.add(c) for c in contents]})
    if number == 3:
        print("running", flush=True)
"""


@pytest.mark.slow
def test_a_build_killed_while_it_stores_leaves_only_whole_entries(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(store.root)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "running\n"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    records = [record for n in range(4) for _, record in store.records(f"key{n}")]
    assert records  # how many a writer gets to store depends on the machine
    assert all(store.read(digest) is not None for each in records for digest in each["objects"])
    store.evict()  # the lock of a killed process is free
    left = {path.name for path in objects_of(store)}
    assert left == {digest for each in records for digest in each["objects"]}


def test_threads_that_write_read_and_delete_at_once_see_whole_contents(
    tmp_path: Path, busy_threads: None
) -> None:
    store = open_store(tmp_path, limit=200_000)
    wrong = list[bytes]()

    def work(seed: int) -> None:
        for number in range(40):
            content = b"%d" % ((seed + number) % 9) * 5_000
            record_all(store, f"key{number % 3}", [content])
            store.evict()
            read = store.read(digest_of(content))
            if read not in (None, content):
                wrong.append(read)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    record_all(store, "last", [b"still usable"])
    assert store.read(digest_of(b"still usable")) == b"still usable"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "damage", "evict", "forget"]),
        st.integers(0, 5),
        st.binary(min_size=0, max_size=40),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_whatever_happens_to_the_files_what_is_read_is_what_was_stored(
    steps: list[tuple[str, int, bytes]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, stored = open_store(Path(folder), limit=400), dict[str, bytes]()
        for action, number, content in steps:
            files = [path for path in store.root.rglob("*") if path.is_file()]
            if action == "add":
                record_all(store, f"key{number}", [content])
                stored[digest_of(content)] = content
            elif action == "evict" and store.root.exists():
                store.evict()
            elif files and action == "damage":
                files[number % len(files)].write_bytes(content)
            elif files and action == "forget":
                files[number % len(files)].unlink()
            for digest, known in stored.items():
                assert store.read(digest) in (None, known)
            for key in range(6):
                for _, record in store.records(f"key{key}"):
                    assert set(record["objects"]) <= set(stored)
