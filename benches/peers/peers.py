#!/usr/bin/env python3
"""Runs layerstone and its peers on the same trees, alternating, and writes the medians as a table and a chart.

    benches/peers/peers.py CORPORA WORK [--runs N] [--only NAME,...] [--corpora c,d,e]

CORPORA is what `benches/corpora/corpora` made. WORK is a scratch directory: WORK itself holds the repositories and
should be on a disk; what is restored goes to WORK_TMPFS (default /dev/shm). Peers that are not installed are left out
and named. Debian has restic, borgbackup, casync and ostree; `cargo install --locked bupstash` needs libsodium-dev and
pkg-config. Writes benches/results/peers.md and peers.svg.
"""

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORPORA = {"c": "debian-py", "d": "node", "e": "big"}


class Peer:
    """One program and one repository. A step is a shell command; `{tree}`, `{repo}` and `{out}` are filled in."""

    def __init__(self, name, program, init, save, restore, check=None, env=None):
        self.name, self.program = name, program
        self.init, self.save, self.restore, self.check = init, save, restore, check
        self.env = env or {}


LAYERSTONE = ROOT / "target/release/layerstone"
PEERS = [
    Peer(
        "layerstone",
        str(LAYERSTONE),
        "mkdir -p {repo}",
        "{program} --store {repo}/s import {tree} --tag t -q",
        "{program} --store {repo}/s checkout t {out}/x --devices --all-xattrs",
    ),
    Peer(
        "bupstash",
        "bupstash",
        "mkdir -p {repo} && bupstash new-key -o {repo}/key && bupstash init -r {repo}/r",
        "bupstash put -q -r {repo}/r -k {repo}/key {tree} > {repo}/id",
        "bupstash restore -q -r {repo}/r -k {repo}/key --into {out} id=$(cat {repo}/id)",
        env={"HOME": "{repo}/home"},
    ),
    Peer(
        "restic",
        "restic",
        "restic init -q -r {repo}",
        "cd {tree} && restic backup -q -r {repo} .",
        "restic restore -q -r {repo} latest --target {out}",
        "restic check -q --read-data -r {repo}",
        {"RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": "{repo}.cache"},
    ),
    Peer(
        "borg zstd,3",
        "borg",
        "borg init -e none {repo}",
        "cd {tree} && borg create -C zstd,3 {repo}::{{now:%s%f}} .",
        "cd {out} && borg extract {repo}::$(borg list --short --last 1 {repo})",
        "borg check --verify-data {repo}",
        {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_BASE_DIR": "{repo}.base"},
    ),
    Peer(
        "casync",
        "casync",
        "mkdir -p {repo}",
        "casync make --store={repo}/store {repo}/t.caidx {tree}",
        "casync extract --store={repo}/store {repo}/t.caidx {out}/x",
    ),
    Peer(
        "ostree bare",
        "ostree",
        # It keeps no devices: a tree that has some fails, and its cells stay empty.
        "ostree init --repo={repo} --mode=bare",
        "ostree commit --repo={repo} -b t --tree=dir={tree}",
        "ostree checkout --repo={repo} -C t {out}/x",
        "ostree fsck -q --repo={repo}",
    ),
    Peer(
        "tar, zstd -3 -T2",
        "zstd",
        "mkdir -p {repo}",
        "tar -C {tree} -cf - . | zstd -3 -T2 -q -f -o {repo}/t.zst && sync {repo}/t.zst",
        "zstd -dcq {repo}/t.zst | tar -C {out} -xpf -",
    ),
    Peer("cp -a", "cp", "mkdir -p {repo}", None, "cp -a {tree} {out}/x"),
]


class Failed(Exception):
    pass


def step(peer, command, places):
    """Runs a step, and gives its time in seconds and the peak of its memory in MB."""
    program = shutil.which(peer.program)
    places = dict(places, program=program)
    env = dict(os.environ, **{key: value.format(**places) for key, value in peer.env.items()})
    for key in ("HOME", "BORG_BASE_DIR"):
        if key in peer.env:
            os.makedirs(env[key], exist_ok=True)
    began = time.monotonic()
    child = subprocess.Popen(
        ["sh", "-c", command.format(**places)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    errors = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    elapsed = time.monotonic() - began
    if status != 0:
        raise Failed(f"{peer.name}: {command.format(**places)}: {errors.decode(errors='replace').strip()[-300:]}")
    return elapsed, usage.ru_maxrss / 1000


def size_mb(path):
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            total += os.lstat(os.path.join(folder, name)).st_size
    return total / 1e6


def read_all(tree):
    """Brings a tree into the page cache."""
    for folder, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    while file.read(1 << 20):
                        pass


def remove(*paths):
    for path in paths:
        subprocess.run(["rm", "-rf", str(path)], check=True)


def run_once(peer, tree, work, tmpfs, results):
    repo, out = work / "repo", tmpfs / "layerstone-peers"
    remove(repo, f"{repo}.cache", f"{repo}.base", out)
    out.mkdir()
    places = {"tree": tree, "repo": repo, "out": out}

    def measure(what, command):
        """Whether there was something to measure, and it worked."""
        if command is None:
            return False
        try:
            seconds, memory = step(peer, command, places)
        except Failed as error:
            print(error, file=sys.stderr)
            return False
        results.setdefault((peer.name, what), []).append(seconds)
        results.setdefault((peer.name, f"{what} MB"), []).append(memory)
        return True

    step(peer, peer.init, places)
    is_saved = measure("first", peer.save)
    if is_saved:
        results.setdefault((peer.name, "stored"), []).append(size_mb(repo))
        if not peer.name.startswith("tar"):
            measure("again", peer.save)
    if is_saved or peer.save is None:
        measure("restore", peer.restore)
        measure("check", peer.check)
    remove(repo, f"{repo}.cache", f"{repo}.base", out)


COLUMNS = [
    ("first", "first snapshot, s", "{:.2f}"),
    ("stored", "stored, MB", "{:.1f}"),
    ("again", "unchanged again, s", "{:.2f}"),
    ("restore", "restore to tmpfs, s", "{:.2f}"),
    ("check", "read back and check, s", "{:.2f}"),
    ("first MB", "peak memory of the first, MB", "{:.0f}"),
]


def table(tables, runs):
    lines = [f"Medians of {runs} runs, programs alternating, inputs in the page cache, repositories on a disk.", ""]
    processor = platform.processor()
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
            break
    lines += [f"Machine: {os.cpu_count()} cores, {processor}, Linux {platform.release()}.", ""]
    for corpus, results in tables.items():
        lines += [f"**{corpus}**: {CORPORA[corpus]}", ""]
        lines.append("| | " + " | ".join(title for _, title, _ in COLUMNS) + " |")
        lines.append("|---" * (len(COLUMNS) + 1) + "|")
        for peer in PEERS:
            cells = []
            for key, _, form in COLUMNS:
                values = results.get((peer.name, key))
                cells.append(form.format(statistics.median(values)) if values else "")
            if any(cells):
                lines.append(f"| {peer.name} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def chart(tables):
    """Bars of the first snapshot and the restore of each corpus."""
    bars, y = [], 20
    for corpus, results in tables.items():
        for key, title in (("first", "first snapshot"), ("restore", "restore to tmpfs")):
            rows = [(peer.name, results[(peer.name, key)]) for peer in PEERS if (peer.name, key) in results]
            rows = [(name, statistics.median(values)) for name, values in rows]
            longest = max(value for _, value in rows)
            bars.append(f'<text x="10" y="{y}" font-weight="bold">{corpus} ({CORPORA[corpus]}): {title}</text>')
            y += 8
            for name, value in rows:
                width = 420 * value / longest
                colour = "#c2410c" if name == "layerstone" else "#94a3b8"
                bars.append(f'<text x="10" y="{y + 12}">{name}</text>')
                bars.append(f'<rect x="130" y="{y + 2}" width="{width:.0f}" height="12" fill="{colour}"/>')
                bars.append(f'<text x="{136 + width:.0f}" y="{y + 12}">{value:.2f} s</text>')
                y += 18
            y += 24
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="640" height="{y}" font-family="sans-serif" font-size="12">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *bars, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--corpora", dest="names", default="c,d,e")
    options = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--features", "cli"], cwd=ROOT, check=True)
    options.work.mkdir(parents=True, exist_ok=True)
    tmpfs = Path(os.environ.get("WORK_TMPFS", "/dev/shm"))
    wanted = [name for name in options.only.split(",") if name]
    peers = [peer for peer in PEERS if not wanted or peer.name in wanted]
    missing = [peer.name for peer in peers if shutil.which(peer.program) is None]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}", file=sys.stderr)
    tables = {}
    for corpus in options.names.split(","):
        tree = options.corpora / CORPORA[corpus]
        results = tables.setdefault(corpus, {})
        for run in range(options.runs):
            for peer in peers:
                if peer.name not in missing:
                    read_all(tree)
                    print(f"{corpus}: run {run + 1}: {peer.name}", file=sys.stderr)
                    run_once(peer, tree.resolve(), options.work.resolve(), tmpfs, results)
    folder = ROOT / "benches/results"
    folder.mkdir(exist_ok=True)
    text = table(tables, options.runs)
    (folder / "peers.md").write_text(text + "\n", encoding="utf-8")
    (folder / "peers.svg").write_text(chart(tables), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
