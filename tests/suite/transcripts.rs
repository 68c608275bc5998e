//! What every command prints on a small store, as text and as JSON, against files that show it whole; and all JSON against
//! the schema that the program prints.
//!
//! `LAYERSTONE_UPDATE_TRANSCRIPTS=1` writes the files: look at what changed before it is committed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::cli::Cli;
use crate::run::small;
use crate::schema;

/// A transcript's name and a command in it; `write FILE TEXT` writes a file and is shown in none.
const STEPS: &str = "
init       init
init       init --json
project    project create demo
project    project create other --json
project    project create demo --json
project    project limit demo --max-layer-bytes 10MB
project    project limit other --max-layer-bytes 64MiB --json
project    project ls
project    project ls --json
project    project rm demo nope
project    project rm nope other --json
import     import tree.tar --tag base
import     import tree.tar --json
import     import tree.tar -q
import     import missing.tar
import     import missing.tar --json
tag        tag base copy other
tag        tag base more --json
tag        tag -d copy
tag        tag -d more --json
tag        tag base x//y --json
untag      untag other nope
untag      untag nope other2 --json
images     images
images     images --json
images     images -q
images     images -q --json
inspect    inspect base
inspect    inspect nope base --json
history    history base
history    history base --json
ls         ls base
ls         ls base --json
ls         ls base /etc
ls         ls base --path-bytes 2f6f6464ff --json
cat        cat base /etc/motd
cat        cat base --path-bytes 2f6f6464ff
cat        cat base /nope
cat        cat base /nope --json
checkout   checkout base work
checkout   checkout base theirs --json
checkout   checkout base work --json
write work/etc/motd ours
write theirs/etc/motd theirs
commit     commit work --tag mine -m note
commit     commit theirs --tag theirs --json
commit     commit nowhere --json
diff       diff base mine
diff       diff base mine --json
merge      merge mine theirs
merge      merge mine theirs --json
merge      merge base mine --base base --json
tree       tree
tree       tree --json
tree       tree base --dot
export     export base -o out.tar
export     export base -o out.tar --json
workspace  workspace create base --copy --name w
workspace  workspace create base --copy --name v --json
workspace  workspace ls
workspace  workspace ls --json
workspace  workspace path w
workspace  workspace path w --json
workspace  workspace commit w
workspace  workspace commit v --keep --json
workspace  workspace discard v nope
workspace  workspace discard nope --json
rm         rm mine nope
rm         rm nope theirs --json
gc         gc --dry-run
gc         gc --dry-run --json
verify     verify
verify     verify --json
verify     verify --quick --json
repair     repair
repair     repair --json
usage      frobnicate
usage      prune --json
";

/// The same for `run`, which needs a sandbox.
const RUN_STEPS: &str = "
run        run --tag made small change
run        run -q --runtime bubblewrap small change
run        run --json --tag made-quietly small quiet
run        run made fail
run        run --rm small change
run        run --disposable --json small fail
run        run --keep --name kept small change
run        run --json --keep --name kept-too small quiet
run        run small nope
run        run --json small nope
run        run small /new
run        run --json -w /nowhere small sh
run        run -it small sh
run        run --json -d small sh
run        run small
run        run nope sh
";

/// A tar with a directory, a file, a link, and names that are odd.
fn write_tar(path: &Path) {
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let header = |kind: tar::EntryType, mode: u32, size: usize| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_mtime(1_000_000_000);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header
    };
    let directory = |tar: &mut tar::Builder<_>, name: &str| {
        tar.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), name, &[][..]).unwrap();
    };
    directory(&mut tar, "./");
    directory(&mut tar, "etc/");
    for (name, text) in [(&b"etc/motd"[..], "hello\n"), (b"odd\xff", "odd\n"), (b"line\nbreak", "")] {
        let mut header = header(tar::EntryType::Regular, 0o644, text.len());
        let name = std::ffi::OsStr::from_bytes(name);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    let mut link = header(tar::EntryType::Symlink, 0o777, 0);
    tar.append_link(&mut link, "etc/link", "motd").unwrap();
    tar.into_inner().unwrap();
}

/// Text without what differs from run to run.
struct Placeholders {
    directory: String,
    images: BTreeMap<String, usize>,
}

impl Placeholders {
    fn put(&mut self, text: &str) -> String {
        let text = self.ids(&text.replace(&self.directory, "<dir>"));
        text.lines().map(|line| Self::line(line) + "\n").collect()
    }

    /// Each UUID by the order in which they first appear.
    fn ids(&mut self, text: &str) -> String {
        let is_id = |text: &str| {
            let bytes = text.bytes().enumerate();
            bytes.into_iter().all(|(index, byte)| match index {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            })
        };
        let (mut out, mut rest) = (String::new(), text);
        while let Some(first) = rest.chars().next() {
            if let Some(id) = rest.get(..36).filter(|id| is_id(id)) {
                let number = self.images.len() + 1;
                let number = self.images.entry(id.to_owned()).or_insert(number);
                let _ = write!(out, "<image-{number}>");
                rest = &rest[36..];
            } else {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        out
    }

    fn line(line: &str) -> String {
        let words: Vec<_> = line.split(' ').filter(|word| !word.is_empty()).collect();
        if let [key, number] = words.as_slice()
            && key.starts_with('"')
            && number.starts_with(|first: char| first.is_ascii_digit())
            && ["bytes\":", "before\":", "after\":", "examined\":", "uid\":", "gid\":", "objects\":"]
                .iter()
                .any(|end| key.ends_with(end))
        {
            let indent = line.len() - line.trim_start().len();
            let comma = if number.ends_with(',') { "," } else { "" };
            return format!("{}{key} <number>{comma}", &line[..indent]);
        }
        let mut out = line[..line.len() - line.trim_start().len()].to_owned();
        let mut rest = words.as_slice();
        while let [word, after @ ..] = rest {
            let next = after.first().copied().unwrap_or_default();
            let unit = next.trim_end_matches([',', ';', ':', ')']);
            let (shown, taken) = if word.starts_with(|c: char| c.is_ascii_digit() || c == '+' || c == '(')
                && matches!(unit, "B" | "kB" | "MB")
            {
                (format!("<size>{}", &next[unit.len()..]), 2)
            } else if next.starts_with("second") && after.get(1) == Some(&"ago") {
                ("<age>".to_owned(), 3)
            } else if next == "read," || next == "objects" {
                ("<number>".to_owned(), 1)
            } else {
                (Self::word(word), 1)
            };
            rest = &rest[taken..];
            out.push_str(&shown);
            if !rest.is_empty() {
                out.push(' ');
            }
        }
        out
    }

    fn word(word: &str) -> String {
        let core = word.trim_matches(|c: char| "\"',;:()[]".contains(c));
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let shown = if matches!(core.len(), 12 | 64) && is_hex(core) {
            "<hash>".to_owned()
        } else if core.len() >= 20
            && core.ends_with('Z')
            && core.as_bytes()[4] == b'-'
            && !core.starts_with("2001")
        {
            "<time>".to_owned()
        } else if core == format!("{uid}:{gid}") {
            "<owner>".to_owned()
        } else {
            return word.to_owned();
        };
        word.replace(core, &shown)
    }
}

/// The schema's name for what a command prints.
fn schema_name(words: &[&str], properties: &Value) -> String {
    let two = words[..2].join(" ");
    match words {
        ["images", ..] if words.contains(&"-q") => "images --quiet".to_owned(),
        _ if properties.get(&two).is_some() => two,
        _ => words[0].to_owned(),
    }
}

/// Runs each step, and gives what each transcript shows then; JSON must be as the schema says.
fn transcribe<'s>(cli: &Cli, steps: &'s str) -> BTreeMap<&'s str, String> {
    let schema: Value = serde_json::from_str(&cli.ok(&["schema"])).unwrap();
    let mut placeholders =
        Placeholders { directory: cli.path("").display().to_string(), images: BTreeMap::new() };
    let mut transcripts: BTreeMap<&str, String> = BTreeMap::new();
    for step in steps.lines().filter(|line| !line.is_empty()) {
        let words: Vec<_> = step.split_whitespace().collect();
        let (name, words) = words.split_first().unwrap();
        if *name == "write" {
            std::fs::write(cli.path(words[0]), words[1]).unwrap();
            continue;
        }
        let output = cli.run(words);
        let [printed, failure] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        if words.contains(&"--json") {
            let printed_as = schema_name(words, &schema["properties"]);
            for (text, name) in [(&printed, printed_as.as_str()), (&failure, "error")] {
                if !text.is_empty() {
                    let value =
                        serde_json::from_str(text).unwrap_or_else(|error| panic!("{step}: {error}: {text}"));
                    schema::check(&schema, &schema["properties"][name], &value)
                        .unwrap_or_else(|why| panic!("{step}: {why}: {text}"));
                }
            }
        }
        let shown = transcripts.entry(name).or_default();
        let _ = writeln!(shown, "$ layerstone {}", words.join(" "));
        shown.push_str(&placeholders.put(&printed));
        for line in placeholders.put(&failure).lines() {
            let _ = writeln!(shown, "! {line}");
        }
        if let Some(code) = output.status.code().filter(|code| *code != 0) {
            let _ = writeln!(shown, "exit code {code}");
        }
    }
    transcripts
}

/// Compares a transcript with its file, or writes that.
fn compare(name: &str, found: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let path = folder.join(name).with_extension("txt");
    if std::env::var_os("LAYERSTONE_UPDATE_TRANSCRIPTS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{} shows:\n{expected}\nbut was printed:\n{found}", path.display());
}

#[test]
fn every_command_prints_what_its_transcript_shows() {
    let cli = Cli::new();
    write_tar(&cli.path("tree.tar"));
    for (name, found) in transcribe(&cli, STEPS) {
        compare(name, &found);
    }
}

#[test]
fn a_run_prints_what_its_transcript_shows() {
    let Some(cli) = small() else { return };
    for (name, script) in [
        ("change", "echo printed; echo to stderr >&2; echo text > /new"),
        ("quiet", "echo json > /new"),
        ("fail", "exit 7"),
    ] {
        let path = cli.path("tree/bin").join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    cli.ok(&["import", "tree", "--tag", "small", "-q"]);
    let inspected: Value = serde_json::from_str(&cli.ok(&["inspect", "small"])).unwrap();
    // The libraries of a shell are not the same everywhere.
    let entries = inspected[0]["entries"].as_u64().unwrap();
    let transcripts = transcribe(&cli, RUN_STEPS);
    let mut found = transcripts["run"].clone();
    for (number, shown) in [(entries, "<entries>"), (entries + 1, "<entries and one>")] {
        found = found.replace(&format!("! {number} paths"), &format!("! {shown} paths"));
        found = found.replace(&format!("\"entries\": {number},"), &format!("\"entries\": {shown},"));
    }
    compare("run", &found);
}

#[test]
fn each_command_that_prints_json_has_a_schema_of_its_own() {
    let cli = Cli::new();
    let all: Value = serde_json::from_str(&cli.ok(&["schema"])).unwrap();
    assert!(!cli.path("store").exists());
    for (command, schema) in all["properties"].as_object().unwrap() {
        let words: Vec<_> =
            ["schema"].into_iter().chain(command.split(' ').filter(|word| *word != "--quiet")).collect();
        let own: Value = serde_json::from_str(&cli.ok(&words)).unwrap();
        if let Some(reference) = schema.get("$ref") {
            assert_eq!(own["$ref"], *reference, "{command}");
        }
        let of_all = all["$defs"].as_object().unwrap().len();
        assert!(own["$defs"].as_object().unwrap().len() < of_all, "{command} has what it needs alone");
    }
    let silent = ["cat", "error", "gc", "help", "image", "project", "ps", "schema", "workspace"];
    let help = cli.ok(&["help"]);
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    for command in commands.lines().map(|line| line.split_whitespace().next().unwrap()) {
        let has_one = all["properties"].get(command).is_some();
        assert!(has_one || silent.contains(&command), "{command}");
    }
    assert_eq!(cli.fails(&["schema", "cat"]).0, 2);
}
