"""The programs that are measured: what makes a repository, saves a tree, restores and checks it; and their installation."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAYERSTONE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/layerstone"


@dataclass(frozen=True)
class Program:
    """Steps are shell commands, in which these are filled in: {tree}, what is saved; {repo}, an empty directory, the size of
    which counts as stored; {aside}, one that does not count, with the caches and keys (HOME is there); {out}, an empty
    directory on the tmpfs."""

    key: str
    title: str
    binary: str
    restore: str
    save: str | None = None
    init: str = ""
    check: str | None = None
    version: str = "--version"
    env: dict = field(default_factory=dict)
    keeps_history: bool = True  # that is, a second save adds to the first instead of storing it all again
    is_peer: bool = True

    def is_installed(self):
        return shutil.which(self.binary) is not None

    def version_text(self):
        asked = subprocess.run([self.binary, self.version], capture_output=True, text=True, check=False)
        words = (asked.stdout + asked.stderr).replace("'", " ").replace("-", " ").split()
        return next((word for word in words if word.lstrip("v")[0].isdigit()), "")


BORG = {
    "binary": "borg",
    "init": "borg init -e none {repo}",
    "restore": "cd {out} && borg extract {repo}::$(borg list --short --last 1 {repo})",
    "check": "borg check --verify-data {repo}",
    "env": {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes", "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"},
}

PROGRAMS = [
    Program(
        "layerstone",
        "layerstone",
        str(LAYERSTONE),
        save=f"{LAYERSTONE} --store {{repo}}/s import {{tree}} --tag t -q",
        restore=f"{LAYERSTONE} --store {{repo}}/s checkout t {{out}}/x --devices --all-xattrs",
        check=f"{LAYERSTONE} --store {{repo}}/s verify",
        is_peer=False,
    ),
    Program(
        "bupstash",
        "bupstash",
        "bupstash",
        init="bupstash new-key -o {aside}/key && bupstash init -r {repo}/r",
        save="bupstash put -q -r {repo}/r -k {aside}/key {tree} > {aside}/id",
        restore="bupstash restore -q --ownership -r {repo}/r -k {aside}/key --into {out} id=$(cat {aside}/id)",
    ),
    Program(
        "restic",
        "restic",
        "restic",
        init="restic init -q -r {repo}",
        save="cd {tree} && restic backup -q -r {repo} .",
        restore="restic restore -q -r {repo} latest --target {out}",
        check="restic check -q --read-data -r {repo}",
        version="version",
        env={"RESTIC_PASSWORD": "x"},
    ),
    Program(
        "rustic",
        "rustic",
        "rustic",
        init="rustic init",
        save="cd {tree} && rustic backup .",
        restore="rustic restore latest {out}",
        check="rustic check --read-data",
        env={"RUSTIC_REPOSITORY": "{repo}", "RUSTIC_PASSWORD": "x", "RUSTIC_NO_PROGRESS": "true"},
    ),
    Program("borg-lz4", "borg, lz4", save="cd {tree} && borg create -C lz4 {repo}::{{now:%s%f}} .", **BORG),
    Program("borg", "borg, zstd 3", save="cd {tree} && borg create -C zstd,3 {repo}::{{now:%s%f}} .", **BORG),
    Program(
        "casync",
        "casync",
        "casync",
        save="casync make --store={repo}/store {repo}/t.caidx {tree}",
        restore="casync extract --store={repo}/store {repo}/t.caidx {out}/x",
        check="casync digest --store={repo}/store {repo}/t.caidx",
    ),
    Program(
        "ostree",
        "ostree, bare",
        "ostree",
        init="ostree init --repo={repo} --mode=bare",
        save="if [ -e {tree}/dev ]; then echo /dev; fi > {aside}/skipped;"
        " ostree commit --repo={repo} -b t --tree=dir={tree} --skip-list={aside}/skipped",
        restore="ostree checkout --repo={repo} -C t {out}/x",
        check="ostree fsck -q --repo={repo}",
    ),
    Program(
        "umoci",
        "umoci, gzip",
        "umoci",
        init="umoci init --layout {repo}/i && umoci new --image {repo}/i:t",
        save="umoci insert --image {repo}/i:t {tree} /",
        restore="umoci raw unpack --image {repo}/i:t {out}/x",
        keeps_history=False,
    ),
    Program(
        "tar",
        "tar, zstd -3 -T2",
        "zstd",
        save="tar -C {tree} -cf - . | zstd -3 -T2 -q -f -o {repo}/t.zst && sync {repo}/t.zst",
        restore="zstd -dcq {repo}/t.zst | tar -C {out} -xpf -",
        keeps_history=False,
        is_peer=False,
    ),
    Program("cp", "cp -a", "cp", restore="cp -a {tree} {out}/x", is_peer=False),
]

NOTES = """\
Each program does what it does by default: casync and umoci don't sync what they store; bupstash encrypts, and keeps no
extended attributes; ostree keeps no times. As ostree refuses device nodes, it leaves out /dev (14 entries of c). umoci
inserts the tree as one gzip layer, and unpacks it without the bundle's metadata. casync's check is `digest`; bupstash and
umoci have none.
"""

DEBIAN = {"restic": "restic", "borg": "borgbackup", "casync": "casync", "ostree": "ostree", "umoci": "umoci", "zstd": "zstd"}
CARGO = {"bupstash": "bupstash", "rustic": "rustic-rs"}
CARGO_NEEDS = {"bupstash": ["libsodium-dev", "pkg-config"], "rustic": ["build-essential"]}


def find_cargo_programs():
    """`cargo install` puts programs where PATH may not look."""
    folder = Path(os.environ.get("CARGO_INSTALL_ROOT") or os.environ.get("CARGO_HOME") or Path.home() / ".cargo") / "bin"
    os.environ["PATH"] += f":{folder}"


def attempt(command):
    """Runs a command of an installation; gives why it failed, or None."""
    print("+", " ".join(command), file=sys.stderr)
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        return str(error)
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("e:", "error"))] or lines[-1:]
    why = re.sub(r"\w+://\S+", "(address)", "; ".join(errors[:3])) or f"exit code {done.returncode}"
    return None if done.returncode == 0 else why


def install():
    """Installs what is missing; gives, for each program that could not be, why."""
    debian = {binary: [package] for binary, package in DEBIAN.items() if shutil.which(binary) is None}
    cargo = {binary: package for binary, package in CARGO.items() if shutil.which(binary) is None}
    wanted = debian | {binary: CARGO_NEEDS[binary] for binary in cargo}
    failed = {}
    if wanted and os.geteuid() == 0:
        attempt(["apt-get", "update", "-qq"])
        for binary, packages in wanted.items():
            failed[binary] = attempt(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages])
    elif debian:
        failed = {binary: "apt-get needs root" for binary in debian}
    for binary, package in cargo.items():
        failed[binary] = attempt(["cargo", "install", "--locked", package])
    return {binary: why for binary, why in failed.items() if shutil.which(binary) is None}
