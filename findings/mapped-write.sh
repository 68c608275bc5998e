#!/usr/bin/env bash
# A file is written through a mapping that was open before the last snapshot of it.
#
# Guess: its modification time changes, so a program that goes by size and times sees the change at the latest once all is
# closed. Seen with Mercurial 7.2.4 on Linux 6.18: the time changes at the first write to a clean page only. While the page waits to
# be written back, further writes to it leave size and all times as they are. `hg status` shows nothing, then and after the
# mapping is closed, while the file and the commit differ.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv tools
tools/bin/pip install --quiet mercurial==7.2.4

HGRCPATH='' HGUSER=someone python3 - "$work/tools/bin/hg" <<'PY' | tee seen
import mmap, os, subprocess, sys, time

def hg(*words):
    return subprocess.run([sys.argv[1], *words], capture_output=True, text=True, check=True).stdout

os.mkdir("repository")
os.chdir("repository")
hg("init")
with open("database", "wb") as file:
    file.write(b"-" * 8192)
hg("add", "database")
file = open("database", "r+b")
pages = mmap.mmap(file.fileno(), 0)
pages[0] = ord("A")
time.sleep(3)
hg("commit", "--message", "one")
# Mercurial remembers size and time only now.
hg("status")
before = os.stat("database")
pages[0] = ord("B")
after = os.stat("database")
print("times differ:", (before.st_mtime_ns, before.st_ctime_ns) != (after.st_mtime_ns, after.st_ctime_ns))
print("status:", hg("status").strip() or "nothing")
pages.close()
file.close()
time.sleep(1)
print("status when closed:", hg("status").strip() or "nothing")
print("file:", open("database").read(1), "commit:", hg("cat", "database")[0])
PY
diff seen - <<'EXPECTED'
times differ: False
status: nothing
status when closed: nothing
file: B commit: A
EXPECTED
