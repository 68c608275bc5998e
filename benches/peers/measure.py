"""Runs steps and measures them: time, anonymous memory, sizes; small edits of a tree that can be undone."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path


class Failed(Exception):
    pass


class MemoryWatch(threading.Thread):
    """The peak of the anonymous memory (RssAnon) of all processes of a group together, asked every 10 ms."""

    INTERVAL = 0.01

    def __init__(self, group):
        super().__init__(daemon=True)
        self.group, self.peak_kb, self.ended = group, 0, threading.Event()

    def run(self):
        while not self.ended.wait(self.INTERVAL):
            self.peak_kb = max(self.peak_kb, sum(map(self.anonymous_kb, self.members())))

    def members(self):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(ProcessLookupError):
                    if os.getpgid(int(name)) == self.group:
                        yield name

    @staticmethod
    def anonymous_kb(process):
        try:
            with open(f"/proc/{process}/status", "rb") as status:
                return next((int(line.split()[1]) for line in status if line.startswith(b"RssAnon:")), 0)
        except (FileNotFoundError, ProcessLookupError):
            return 0

    def finish(self):
        self.ended.set()
        self.join()
        return self.peak_kb / 1000


def run_step(command, env, is_memory_wanted=False):
    """Runs a shell command in a process group of its own; gives its seconds and, if wanted, its peak of memory in MB."""
    os.sync()  # what was written before is not this step's to write
    with tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        child = subprocess.Popen(
            ["sh", "-c", command], env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            watch = MemoryWatch(child.pid) if is_memory_wanted else None
            if watch:
                watch.start()
            child.wait()
            elapsed = time.monotonic() - began
        except BaseException:
            end_group(child)
            raise
        memory = watch.finish() if watch else None
        if child.returncode != 0:
            errors.seek(0)
            said = " ".join(errors.read().decode(errors="replace").split())
            raise Failed(f"exit code {child.returncode}: {said[-300:]}")
    return elapsed, memory


def end_group(child):
    """Kills a step that is interrupted, with all that it started: what it leaves is scratch."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for _ in range(500):
            os.killpg(child.pid, 0)  # raises when none is left
            time.sleep(0.01)


def remove(*paths):
    subprocess.run(["rm", "-rf", "--", *map(str, paths)], check=True)


def regular_files(tree):
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            if info.st_mode & 0o170000 == 0o100000:
                yield path, info


def files_and_bytes(tree):
    sizes = [info.st_size for _, info in regular_files(tree)]
    return len(sizes), sum(sizes)


def size_mb(path):
    return files_and_bytes(path)[1] / 1e6


def read_all(*trees):
    """Brings trees into the page cache."""
    buffer = bytearray(1 << 20)
    for tree in trees:
        for path, _ in regular_files(tree):
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


class SmallEdits:
    """Scattered files of a tree, each with another version in which a few bytes are inserted. The versions are exchanged by
    renaming, so that no data is written just before a step is timed; the same files are taken each time."""

    def __init__(self, tree, aside, count=25):
        aside.mkdir()
        candidates = sorted(path for path, info in regular_files(tree) if info.st_nlink == 1 and info.st_size > 0)
        picked = random.Random(count).sample(candidates, min(count, len(candidates)))
        self.pairs = [(Path(path), aside / str(number)) for number, path in enumerate(picked)]
        self.spare = aside / "spare"
        for path, other in self.pairs:
            self.make_version(path, other)

    @staticmethod
    def make_version(path, other):
        data, info = path.read_bytes(), path.stat()
        middle = len(data) // 2
        other.write_bytes(data[:middle] + b"a small edit\n" + data[middle:])
        os.chown(other, info.st_uid, info.st_gid)
        shutil.copymode(path, other)

    def exchange(self):
        for path, other in self.pairs:
            folder = path.parent.stat()
            path.rename(self.spare)
            other.rename(path)
            self.spare.rename(other)
            os.utime(path.parent, ns=(folder.st_atime_ns, folder.st_mtime_ns))

    @contextlib.contextmanager
    def applied(self):
        self.exchange()
        try:
            yield
        finally:
            self.exchange()
