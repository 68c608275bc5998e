#!/usr/bin/env python3
"""Runs layerstone and its peers on the same trees, alternating, and writes medians as a table and a chart.

    benches/peers/peers.py --install CORPORA WORK

CORPORA is what `benches/corpora/corpora` made. WORK is a directory for scratch data on a disk, with 3 GB free; what is
restored goes to WORK_TMPFS (default /dev/shm), with 1 GB free. Needs root, for owners and device nodes, and an idle machine.
Writes peers.md and peers.svg into benches/results. `--install` first installs the peers that are missing: from
Debian restic, borgbackup, casync, ostree, umoci, and with cargo bupstash and rustic. Programs that are not there are left out,
and named. Ctrl-C leaves nothing behind.
"""

import argparse
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import chart
import report
from measure import Failed, SmallEdits, files_and_bytes, read_all, remove, run_step, size_mb
from programs import LAYERSTONE, PROGRAMS, ROOT, find_cargo_programs, install

CORPORA = {
    "c": ["debian-py"],
    "d": ["node"],
    "e": ["big", "big-edited"],
    "layers": ["debian", "debian-dev", "debian-py"],
}


def say(*words):
    print(*words, file=sys.stderr, flush=True)


class Figures:
    """What was measured: for each row of the table and each program, a value from each run."""

    def __init__(self):
        self.values, self.failures = {}, {}

    def add(self, row, program, value):
        self.values.setdefault((row, program.key), []).append(value)
        say(f"    {row}: {value:.2f}")

    def fail(self, row, program, why):
        self.failures[(row, program.key)] = why
        say(f"    {row}: failed: {why}")


class Repository:
    """A new repository of one program, and the steps made on it. It is gone when they are done."""

    def __init__(self, program, scratch, tmpfs, figures):
        self.program, self.figures = program, figures
        self.places = {"repo": scratch / "repo", "aside": scratch / "aside", "out": tmpfs / "out"}

    def __enter__(self):
        remove(*self.places.values())
        for place in self.places.values():
            place.mkdir()
        if self.program.init:
            self.run(self.program.init)
        return self

    def __exit__(self, *_):
        remove(*self.places.values())

    def run(self, command, tree=None, is_memory_wanted=False):
        places = dict(self.places, tree=tree)
        env = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
        env |= {key: value.format(**places) for key, value in self.program.env.items()}
        env["HOME"] = str(self.places["aside"])
        try:
            return run_step(command.format(**places), env, is_memory_wanted)
        except Failed as error:
            raise Failed(self.without_places(str(error), places)) from None

    @staticmethod
    def without_places(said, places):
        """What goes into a report names no directories of this machine."""
        for name, place in places.items():
            said = said.replace(str(place), f"{{{name}}}")
        return said

    def measure(self, row, command, tree=None):
        """Runs a step and notes its time, if there is such a step and it works; whether it did."""
        if command is None:
            return False
        try:
            seconds, _ = self.run(command, tree)
        except Failed as error:
            self.figures.fail(row, self.program, str(error))
            return False
        self.note(row, seconds)
        return True

    def save(self, row, tree):
        read_all(tree, self.places["repo"])
        return self.measure(row, self.program.save, tree)

    def restore(self, row, tree, expected):
        """Restores to the tmpfs. Of what comes, only the number and the size of files are compared."""
        out = self.places["out"]
        read_all(self.places["repo"] if self.program.save else tree)
        if self.measure(row, self.program.restore, tree) and files_and_bytes(out) != expected:
            self.reject(row, "files are missing from what was restored")
        remove(out)
        out.mkdir()

    def check(self, row):
        read_all(self.places["repo"])
        self.measure(row, self.program.check)

    def stored(self):
        return size_mb(self.places["repo"])

    def note(self, row, value):
        self.figures.add(row, self.program, value)

    def reject(self, row, why):
        self.figures.values[(row, self.program.key)].pop()
        self.figures.fail(row, self.program, why)


class WatchedRepository(Repository):
    """One whose steps are watched for their memory, which takes time: so nothing else is noted of them."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.peak_mb = 0

    def measure(self, row, command, tree=None):
        if command is None:
            return False
        _, memory_mb = self.run(command, tree, is_memory_wanted=True)
        self.peak_mb = max(self.peak_mb, memory_mb)
        return True

    def note(self, row, value):
        pass

    def reject(self, row, why):
        pass


def measure_snapshot(repository, corpus, tree, expected):
    """The steps that every tree is measured by; whether there is a repository with the tree now."""
    if repository.program.save is None:
        repository.restore(f"restore {corpus}", tree, expected)
        return False
    if not repository.save(f"first {corpus}", tree):
        return False
    repository.note(f"stored {corpus}", repository.stored())
    repository.restore(f"restore {corpus}", tree, expected)
    repository.check(f"check {corpus}")
    if not repository.program.keeps_history:
        return False
    return repository.save(f"again {corpus}", tree)


def measure_changes(repository, tree, edits):
    """25 small changes: seconds, and what they add in KB."""
    before = repository.stored()
    with edits.applied():
        if repository.save("changes c", tree):
            repository.note("changes stored c", (repository.stored() - before) * 1000)


def measure_edited(repository, tree):
    """The tree with the edited database, after the one without the edits: seconds, and what it adds in MB."""
    before = repository.stored()
    if repository.save("edited e", tree):
        repository.note("edited stored e", repository.stored() - before)


def measure_layers(repository, trees):
    """Trees that build on each other, saved in turn."""
    if repository.program.keeps_history and repository.program.save:
        if all(repository.save(f"layers {tree.name}", tree) for tree in trees):
            repository.note("layers stored", repository.stored())


class Bench:
    def __init__(self, options, programs, scratch, tmpfs):
        self.options, self.programs, self.scratch, self.tmpfs = options, programs, scratch, tmpfs
        self.figures = Figures()

    def run(self):
        for corpus in self.options.corpora_names:
            trees = [(self.options.corpora / name).resolve() for name in CORPORA[corpus]]
            self.run_corpus(corpus, trees)

    def run_corpus(self, corpus, trees):
        tree, edits = trees[0], None
        if corpus == "c":  # a copy, as it will be edited
            tree = self.scratch / "c"
            subprocess.run(["cp", "-a", "--", trees[0], tree], check=True)
            edits = SmallEdits(tree, self.scratch / "edits")
        expected = files_and_bytes(tree)

        def measure(repository):
            if corpus == "layers":
                measure_layers(repository, trees)
            elif measure_snapshot(repository, corpus, tree, expected):
                if corpus == "c":
                    measure_changes(repository, tree, edits)
                if corpus == "e":
                    measure_edited(repository, trees[1])

        for run in range(self.options.runs):
            for program in self.programs:
                if corpus == "layers" and not (program.save and program.keeps_history):
                    continue
                say(f"{corpus}, run {run + 1} of {self.options.runs}: {program.title}")
                try:
                    with Repository(program, self.scratch, self.tmpfs, self.figures) as repository:
                        measure(repository)
                except Failed as error:
                    self.figures.fail(f"new repository {corpus}", program, str(error))
        for program in self.programs if corpus != "layers" else []:
            say(f"{corpus}, memory: {program.title}")
            try:
                with WatchedRepository(program, self.scratch, self.tmpfs, self.figures) as repository:
                    measure(repository)
                    self.figures.add(f"memory {corpus}", program, repository.peak_mb)
            except Failed as error:
                self.figures.fail(f"memory {corpus}", program, str(error))
        if edits:
            remove(tree, self.scratch / "edits")


def choose_programs(wanted):
    """The wanted programs that are installed, and the titles of those that are not."""
    chosen = [program for program in PROGRAMS if not wanted or program.key in wanted]
    there = [program for program in chosen if program.is_installed()]
    return there, [program for program in chosen if program not in there]


def without_missing_commands(program):
    """layerstone has no `verify` in older versions."""
    if program.key == "layerstone":
        listed = subprocess.run([LAYERSTONE, "help"], capture_output=True, text=True, check=True).stdout
        if "verify" not in [line.split()[0] for line in listed.splitlines() if line.strip()]:
            return dataclasses.replace(program, check=None)
    return program


def parse_arguments():
    keys = ",".join(program.key for program in PROGRAMS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--install", action="store_true", help="install the peers that are missing")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default=keys, help=f"programs, of {keys}")
    parser.add_argument("--corpora", dest="corpora_names", default=",".join(CORPORA), help="of c,d,e,layers")
    parser.add_argument("--results", type=Path, default=ROOT / "benches/results", help="where the results are written")
    options = parser.parse_args()
    options.only, options.corpora_names = options.only.split(","), options.corpora_names.split(",")
    unknown = [key for key in options.only if key not in keys.split(",")]
    unknown += [name for name in options.corpora_names if name not in CORPORA]
    if unknown or options.runs < 1:
        parser.error(f"unknown: {', '.join(unknown)}" if unknown else "--runs must be 1 or more")
    return options


def end_on_signals():
    """A terminated run ends as one that is interrupted: through the `finally` that removes what it made."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def measure_all(options, programs):
    options.work.mkdir(parents=True, exist_ok=True)
    tmpfs = os.environ.get("WORK_TMPFS", "/dev/shm")
    places = [Path(tempfile.mkdtemp(prefix="layerstone-peers-", dir=place)).resolve() for place in (options.work, tmpfs)]
    try:
        bench = Bench(options, programs, *places)
        bench.run()
        return bench.figures
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        remove(*places)


def main():
    options = parse_arguments()
    end_on_signals()
    find_cargo_programs()
    reasons = install() if options.install else {}
    subprocess.run(["cargo", "build", "--release", "--features", "cli"], cwd=ROOT, check=True)
    programs, missing = choose_programs(options.only)
    left_out = {program.title: reasons.get(program.binary, "not installed") for program in missing}
    for title, why in left_out.items():
        say(f"left out: {title}: {why}")
    try:
        figures = measure_all(options, [without_missing_commands(program) for program in programs])
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing is written, and the scratch data is gone")
    text = report.text(figures, programs, options.runs, left_out)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "peers.md").write_text(text, encoding="utf-8")
    (options.results / "peers.svg").write_text(chart.svg(figures, programs), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
