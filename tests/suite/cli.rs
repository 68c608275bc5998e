//! The program as scripts use it: output, exit codes, two at once.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use layerstone::StoreOptions;

pub(crate) struct Cli {
    scratch: tempfile::TempDir,
}

impl Cli {
    pub(crate) fn new() -> Self {
        Self { scratch: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.scratch.path().join(name)
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_layerstone"));
        command.env("LAYERSTONE_STORE", self.path("store")).env_remove("LAYERSTONE_PROJECT");
        command.current_dir(self.scratch.path()).args(words);
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Standard output of a command that succeeds.
    pub(crate) fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The exit code and standard error of a command that fails.
    pub(crate) fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.lines().count() <= 2, "{words:?} explains itself briefly: {text}");
        (output.status.code().unwrap(), text)
    }

    pub(crate) fn tree(&self) {
        std::fs::create_dir_all(self.path("tree/etc")).unwrap();
        std::fs::write(self.path("tree/etc/motd"), "hello\n").unwrap();
        std::fs::write(self.path("tree/issue"), "one\n").unwrap();
    }
}

pub(crate) fn last_line(text: &str) -> &str {
    text.lines().last().unwrap()
}

#[test]
fn the_main_job() {
    let cli = Cli::new();
    cli.tree();
    let imported = cli.ok(&["import", "tree", "--tag", "base:1", "-q"]);
    assert_eq!(
        imported,
        cli.ok(&["import", "tree", "-q"]),
        "the same content is the same image, and -q prints only it"
    );
    cli.ok(&["checkout", "base:1", "work"]);
    assert_eq!(last_line(&cli.ok(&["commit", "work"])), imported.trim(), "unchanged gives the base back");
    std::fs::write(cli.path("work/etc/motd"), "bye\n").unwrap();
    std::fs::remove_file(cli.path("work/issue")).unwrap();
    let committed = cli.ok(&["commit", "work", "--tag", "mine", "-m", "shorter"]);
    assert_eq!(cli.ok(&["cat", "mine", "/etc/motd"]), "bye\n");
    let differences = cli.ok(&["diff", "base:1", last_line(&committed)]);
    assert!(
        differences.contains("M /etc/motd  (content") && differences.contains("D /issue"),
        "{differences}"
    );
    assert!(cli.ok(&["history", "mine"]).contains("shorter"));
    assert!(cli.ok(&["ls", "mine", "/etc"]).contains("/etc/motd"));
    let listed: serde_json::Value = serde_json::from_str(&cli.ok(&["--json", "images"])).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["parent"], imported.trim());
    assert_eq!(
        cli.ok(&["images", "-q"]).lines().collect::<Vec<_>>(),
        [last_line(&committed), imported.trim()]
    );
    cli.ok(&["export", "mine", "-o", "mine.tar"]);
    let from_tar = cli.ok(&["import", "mine.tar", "-q"]);
    let roots: serde_json::Value =
        serde_json::from_str(&cli.ok(&["inspect", "mine", from_tar.trim()])).unwrap();
    assert_eq!(roots[0]["root"], roots[1]["root"], "a tar and back is the same tree");
    cli.ok(&["rm", "mine"]);
    assert_eq!(cli.fails(&["inspect", "mine"]).0, 3);
}

#[test]
fn shadowing() {
    let cli = Cli::new();
    cli.tree();
    let public = cli.ok(&["--project", "public", "import", "tree", "--tag", "os", "-q"]);
    std::fs::write(cli.path("tree/issue"), "two\n").unwrap();
    let own = cli.ok(&["import", "tree", "--tag", "os", "-q"]);
    assert_eq!(cli.ok(&["cat", "os", "/issue"]), "two\n");
    assert_eq!(cli.ok(&["cat", public.trim(), "/issue"]), "one\n");
    assert!(cli.ok(&["images", "-q"]).starts_with(own.trim()));
    cli.ok(&["untag", "os"]);
    assert_eq!(cli.ok(&["cat", "os", "/issue"]), "one\n");
    assert_eq!(cli.fails(&["rm", "os"]).0, 2, "the public scope can only be read");
}

#[test]
fn exit_codes_say_what_kind_of_failure() {
    let cli = Cli::new();
    cli.tree();
    let id = cli.ok(&["import", "tree", "--tag", "a", "--tag", "b", "-q"]);
    let cases: &[(&[&str], i32, &str)] = &[
        (&["tag", "a"], 2, "an image and at least one tag"),
        (&["tag", "a", "x//y"], 2, "position 3"),
        (&["frobnicate"], 2, "unrecognized subcommand"),
        (&["import", "nowhere"], 3, "No such file or directory"),
        (&["cat", "a", "/nope"], 3, "/nope"),
        (&["cat", "a", "/etc"], 2, "is a directory"),
        (&["ls", "a", "/issue/x"], 2, "is not a directory"),
        (&["--project", "other", "images"], 3, "project 'other'"),
        (&["rm", id.trim()], 4, "tags a, b"),
        (&["tag", "--expect", "absent", "a", "b"], 4, "not no image as expected"),
        (&["project", "create", "public"], 2, "public"),
        (&["checkout", "a", "tree"], 4, "not an empty directory"),
        (&["commit", "tree"], 2, "is no checkout"),
    ];
    for (words, code, text) in cases {
        let (found, said) = cli.fails(words);
        assert_eq!(found, *code, "{words:?}: {said}");
        assert!(said.contains(text), "{words:?}: {said}");
    }
    let (_, said) = cli.fails(&["--json", "cat", "nope", "/x"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said).unwrap()["error"], "not_found");
}

#[test]
fn a_store_that_is_held_is_locked_and_names_its_holder() {
    let cli = Cli::new();
    let held = StoreOptions::default().exclusive(true).open(cli.path("store")).unwrap();
    let (code, said) = cli.fails(&["--lock-timeout", "0.2", "images"]);
    assert_eq!(code, 5);
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    drop(held);
    cli.ok(&["images"]);
}

#[test]
fn two_commands_at_once_both_succeed() {
    let cli = Cli::new();
    for number in 0..8 {
        let tree = cli.path(&format!("tree{number}"));
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("file"), vec![number; 100_000]).unwrap();
    }
    let spawn = |number: u8| {
        let (tree, tag) = (format!("tree{number}"), format!("t{number}"));
        cli.command(&["import", &tree, "--tag", &tag]).stdout(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = (0..8).map(spawn).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(cli.ok(&["images", "-q"]).lines().count(), 8);
    let store = Path::new("store/packs");
    assert!(cli.path(store.to_str().unwrap()).is_dir());
}

/// Changes a byte in every frame of every pack.
fn damage_packs(store: &Path) {
    for entry in std::fs::read_dir(store.join("packs")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.iter_mut().skip(64).step_by(64).for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn an_export_that_fails_leaves_the_old_file_and_no_part_of_a_new_one() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    cli.ok(&["export", "a", "-o", "a.tar"]);
    let whole = std::fs::read(cli.path("a.tar")).unwrap();
    std::fs::write(cli.path("tree/issue"), vec![7; 300_000]).unwrap();
    cli.ok(&["import", "tree", "--tag", "b"]);
    damage_packs(&cli.path("store"));
    for name in ["a.tar", "new.tar"] {
        assert_eq!(cli.fails(&["export", "b", "-o", name]).0, 6);
    }
    assert_eq!(std::fs::read(cli.path("a.tar")).unwrap(), whole);
    let mut names: Vec<_> =
        std::fs::read_dir(cli.scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.tar", "store", "tree"]);
}

#[test]
fn an_export_goes_to_standard_output_and_to_what_is_no_file() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    cli.ok(&["export", "a", "-o", "a.tar"]);
    let whole = std::fs::read(cli.path("a.tar")).unwrap();
    for words in [&["export", "a"][..], &["export", "a", "-o", "-"], &["export", "a", "-o", "/dev/stdout"]] {
        assert!(cli.run(words).stdout == whole, "{words:?}");
    }
    let redirected = std::fs::File::create(cli.path("redirected.tar")).unwrap();
    let same = redirected.try_clone().unwrap();
    let status = cli.command(&["export", "a", "-o", "/dev/stdout"]).stdout(redirected).status().unwrap();
    assert!(status.success());
    let redirected = std::fs::metadata(cli.path("redirected.tar")).unwrap();
    assert_eq!(redirected.len(), whole.len() as u64);
    assert_eq!(redirected.ino(), same.metadata().unwrap().ino(), "what the shell opened is what is written");
    cli.ok(&["export", "a", "-o", "/dev/null"]);
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert_eq!(cli.fails(&["export", "a", "-o", "/dev/full"]).0, 1);
    assert_eq!(cli.fails(&["export", "a", "-o", "tree"]).0, 1);
}

#[test]
fn a_store_is_verified_and_damage_said() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree"]);
    let sound = cli.ok(&["verify"]);
    assert!(sound.starts_with("1 image and ") && sound.ends_with(": all sound\n"), "{sound}");
    assert!(cli.ok(&["verify", "--json"]).contains("\"fault_count\": 0"));
    let pack = cli.path("store/packs/0000000001.pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let output = cli.run(&["verify"]);
    assert_eq!(output.status.code(), Some(6));
    let [said, faults] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(
        said.contains("\n  pack 1: ") && said.contains(" of default: ") && said.contains("\n    /"),
        "{said}"
    );
    assert!(said.lines().last().unwrap().contains(", 1 image damaged"), "{said}");
    assert!(faults.contains("damage was found; 'repair' keeps what is sound"), "{faults}");
    let quick = cli.run(&["verify", "--quick"]);
    assert!(String::from_utf8(quick.stdout).unwrap().contains("file contents not read: "));
}

#[test]
fn damage_that_makes_the_database_panic_is_said_once_and_as_any_other() {
    const PAGE_BYTES: usize = 4096;
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    let catalog = cli.path("store/catalog.redb");
    let sound = std::fs::read(&catalog).unwrap();
    let mut panics = 0;
    for (number, page) in sound.chunks(PAGE_BYTES).enumerate() {
        if page.iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut damaged = sound.clone();
        damaged[number * PAGE_BYTES..][..page.len()].fill(0xff);
        for words in [&["--json", "images"][..], &["images"]] {
            std::fs::write(&catalog, &damaged).unwrap();
            let output = cli.run(words);
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(!said.contains("panicked") && said.lines().count() <= 2, "page {number}: {said}");
            // Not every page is needed by this command.
            assert_eq!(said.is_empty(), output.status.success(), "page {number}: {said}");
            if !said.is_empty() && words.contains(&"--json") {
                let value: serde_json::Value = serde_json::from_str(&said).unwrap();
                assert_eq!((output.status.code(), value["error"].as_str()), (Some(6), Some("corrupt")));
                panics += usize::from(value["message"].as_str().unwrap().contains("its pages are damaged: "));
            }
        }
    }
    assert!(panics > 0, "no page made the database panic");
}

#[test]
fn a_store_without_a_folder_of_its_own_says_which_and_is_repaired() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    std::fs::remove_dir_all(cli.path("store/generations")).unwrap();
    for words in [
        &["cat", "a", "/issue"][..],
        &["import", "tree"],
        &["checkout", "a", "work"],
        &["gc"],
        &["gc", "--dry-run"],
        &["verify"],
    ] {
        let (code, said) = cli.fails(words);
        assert_eq!(code, 6, "{words:?}: {said}");
        assert!(said.contains("its folder 'generations' is missing; repair the store"), "{words:?}: {said}");
    }
    cli.ok(&["repair"]);
    assert_eq!(cli.ok(&["cat", "a", "/issue"]), "one\n");
    cli.ok(&["gc"]);
    assert!(cli.ok(&["verify"]).ends_with(": all sound\n"));
}

#[test]
fn what_was_removed_is_freed() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    let nothing = cli.ok(&["gc"]);
    assert!(
        nothing.starts_with("0 B freed of ") && nothing.ends_with("(0 packs); 1 image stays\n"),
        "{nothing}"
    );
    cli.ok(&["rm", "a"]);
    let planned = cli.ok(&["gc", "--dry-run"]);
    assert!(
        planned.contains(" would be freed of ") && planned.ends_with("(1 pack); 0 images stay\n"),
        "{planned}"
    );
    assert!(cli.path("store/packs/0000000001.pack").exists());
    let report: serde_json::Value = serde_json::from_str(&cli.ok(&["gc", "--full", "--json"])).unwrap();
    assert_eq!(
        (report["freed_packs"].as_u64(), report["waiting_packs"].as_u64()),
        (Some(1), Some(0)),
        "{report}"
    );
    assert!(!cli.path("store/packs/0000000001.pack").exists());
    cli.ok(&["import", "tree", "--tag", "a"]);
    assert!(cli.ok(&["verify"]).ends_with(": all sound\n"));
}

#[test]
fn a_store_is_repaired_and_losses_said() {
    let cli = Cli::new();
    cli.tree();
    let image = cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    // The dump has it, but not the next.
    std::fs::write(cli.path("tree/noise"), crate::roundtrip::noise(10_000, 1)).unwrap();
    let noisy = cli.ok(&["import", "tree", "--tag", "noisy", "-q"]);
    std::fs::remove_file(cli.path("store/catalog.redb")).unwrap();
    assert_eq!(cli.fails(&["images"]).0, 6);
    let output = cli.run(&["repair"]);
    assert_eq!(output.status.code(), Some(6), "a tag is lost");
    let said = String::from_utf8(output.stdout).unwrap();
    let restored = "Restored, from packs alone, without the tags that were on them:\n  image ";
    assert!(said.contains(&format!("{restored}{} of default", noisy.trim())), "{said}");
    assert!(!said.contains("no longer in the store") && !said.contains(image.trim()), "{said}");
    assert!(
        said.contains("The catalog was missing. ") && said.contains("/store/quarantine: delete it"),
        "{said}"
    );
    assert_eq!(last_line(&said), last_line(&cli.ok(&["repair"])), "it is sound now");
    assert!(cli.ok(&["inspect", "base"]).contains(image.trim()));
    let pack = cli.path("store/packs/0000000001.pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    let at =
        bytes.windows(64).position(|window| window == &crate::roundtrip::noise(10_000, 1)[..64]).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let output = cli.run(&["repair"]);
    assert_eq!(output.status.code(), Some(6));
    let [said, failure] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    let lost = format!(
        "Lost, and no longer in the store:\n  image {} of default: 1 path\n    /noise: ",
        noisy.trim()
    );
    assert!(said.contains(&format!(": 4 paths of image {}", noisy.trim())), "{said}");
    assert!(said.contains(&lost), "{said}");
    assert!(failure.contains("it was repaired and is sound now, but for what was lost"), "{failure}");
    assert!(cli.ok(&["verify"]).ends_with(": all sound\n"));
    let json: serde_json::Value = serde_json::from_str(&cli.ok(&["repair", "--json"])).unwrap();
    assert_eq!((json["catalog"].as_str(), json["images"].as_u64()), (Some("whole"), Some(2)));
}

#[test]
fn a_tar_comes_from_a_file_or_through_a_pipe() {
    let cli = Cli::new();
    cli.tree();
    let of_directory = cli.ok(&["import", "tree", "--tag", "a", "-q"]);
    cli.ok(&["export", "a", "-o", "a.tar"]);
    let imported = cli.ok(&["import", "a.tar", "-q"]);
    assert_ne!(imported, of_directory);
    let bytes = std::fs::read(cli.path("a.tar")).unwrap();
    for source in ["-", "/dev/stdin"] {
        let mut command = cli.command(&["import", source, "-q"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), imported, "{source}");
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        cli.path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o600),
        0,
    )
    .unwrap();
    let child = cli.command(&["import", "fifo", "-q"]).stdout(Stdio::piped()).spawn().unwrap();
    std::fs::write(cli.path("fifo"), &bytes).unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, imported.as_bytes());
    assert_eq!(cli.fails(&["import", "a.tar", "--format", "dir"]).0, 2);
}

/// Clears a terminal, begins a line, and does both again by what is no ASCII.
const HOSTILE: &str = "x\u{1b}[2J\nforged\u{9b}2J\u{2028}\u{202e}\\";

fn assert_harmless(text: &str) {
    let is_active = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{2028}' | '\u{202e}'));
    assert!(!text.contains(is_active), "{text:?}");
    assert!(text.lines().all(|line| !line.starts_with("forged")), "{text:?}");
}

#[test]
fn what_others_wrote_does_nothing_to_a_terminal() {
    let cli = Cli::new();
    cli.tree();
    std::fs::write(cli.path("tree").join(HOSTILE), "").unwrap();
    std::os::unix::fs::symlink(HOSTILE, cli.path("tree/link")).unwrap();
    cli.ok(&["import", "tree", "--tag", "a", "-m", HOSTILE]);
    let history = cli.ok(&["history", "a"]);
    assert_eq!(history.lines().count(), 2, "{history}");
    let shown = r"x\u{1b}[2J\nforged\u{9b}2J\u{2028}\u{202e}\\";
    assert!(history.contains(shown), "{history}");
    std::fs::write(cli.path("tree/issue"), "two\n").unwrap();
    cli.ok(&["import", "tree", "--tag", "b"]);
    let texts = [
        history,
        cli.ok(&["inspect", "a"]),
        cli.ok(&["--json", "history", "a"]),
        cli.ok(&["ls", "a"]),
        cli.ok(&["--json", "ls", "a"]),
        cli.ok(&["diff", "a", "b"]),
        cli.ok(&["checkout", "a", HOSTILE]),
        cli.fails(&["cat", "a", HOSTILE]).1,
        cli.fails(&["--json", "cat", "a", HOSTILE]).1,
        cli.fails(&["cat", HOSTILE, "x"]).1,
        cli.fails(&["tag", "a", HOSTILE]).1,
        cli.fails(&["import", HOSTILE]).1,
        cli.fails(&["--store", &format!("tree/issue/{HOSTILE}"), "images"]).1,
        cli.fails(&[HOSTILE]).1,
    ];
    for text in &texts {
        assert_harmless(text);
    }
    for words in [["inspect", "a"], ["history", "a"]] {
        let mut words = words.to_vec();
        words.push("--json");
        let value: serde_json::Value = serde_json::from_str(&cli.ok(&words)).unwrap();
        assert_eq!(value[0]["comment"], HOSTILE, "JSON is exact");
    }
}

#[test]
fn a_message_that_is_not_used_is_not_dropped_silently() {
    let cli = Cli::new();
    cli.tree();
    let first = cli.run(&["import", "tree", "--tag", "a", "-m", "first"]);
    assert_eq!(first.stderr, b"");
    cli.ok(&["checkout", "a", "work"]);
    for words in [&["import", "tree", "-m", "second"][..], &["import", "tree", "-q", "-m", "second"]] {
        let output = cli.run(words);
        assert!(output.status.success());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.lines().count() == 1 && said.contains("was there already"), "{words:?}: {said}");
    }
    let output = cli.run(&["commit", "work", "-m", "second", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["is_new"], output.stderr.as_slice()), (&false.into(), &b""[..]));
    assert_eq!(cli.run(&["import", "tree"]).stderr, b"");
    assert!(cli.ok(&["history", "a"]).contains("first"));
}

#[test]
fn lists_of_one_and_lists_of_ids() {
    let cli = Cli::new();
    std::fs::create_dir(cli.path("tree")).unwrap();
    let imported = cli.ok(&["import", "tree", "--tag", "a"]);
    assert!(imported.starts_with("1 path, "), "{imported}");
    assert!(cli.ok(&["checkout", "a", "work"]).starts_with("1 path, "));
    let ids: Vec<String> = serde_json::from_str(&cli.ok(&["images", "-q", "--json"])).unwrap();
    assert_eq!(ids, [last_line(&imported)]);
}

#[test]
fn a_wrong_command_line_is_refused_as_any_other_failure() {
    let cli = Cli::new();
    let cases: &[(&[&str], &str, Option<&str>)] = &[
        (&["rm"], "required arguments were not provided: <IMAGES>...", Some("rm [OPTIONS] <IMAGES>...")),
        (&["ls", "--bogus", "x"], "unexpected argument '--bogus'", Some("ls [OPTIONS] <IMAGE> [PATH]")),
        (&["imort", "x"], "a similar subcommand exists: 'import'", Some("[OPTIONS] <COMMAND>")),
        (&["import", "--format", "zip", "x"], "'zip'", None),
        (&["cat", "x", "../y"], "'..' component", None),
        (&["cat", "x y", "z"], "position 2", None),
    ];
    for (words, text, usage) in cases {
        let (code, said) = cli.fails(words);
        assert_eq!(code, 2, "{words:?}");
        let (first, rest) = said.trim_end().split_once('\n').unwrap_or((said.trim_end(), ""));
        assert!(first.starts_with("layerstone: ") && first.contains(text), "{words:?}: {said}");
        assert_eq!(rest, usage.map(|usage| format!("Usage: layerstone {usage}")).unwrap_or_default());
        let words = [&["--json"], *words].concat();
        let output = cli.run(&words);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
        let value: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(value["error"], "invalid", "{words:?}");
        assert_eq!(format!("layerstone: {}", value["message"].as_str().unwrap()), first);
    }
    for words in [&["--help"][..], &["--json", "help"], &["rm", "--help"], &["--version"]] {
        assert!(cli.ok(words).contains("layerstone"), "{words:?}");
    }
}

#[test]
fn paths_that_are_not_utf8_are_taken_as_they_are() {
    let cli = Cli::new();
    let odd = OsStr::from_bytes(b"latin-\xe9");
    let directory = cli.path("tree").join(odd);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join(odd), "bytes\n").unwrap();
    cli.ok(&["import", "tree", "--tag", "a"]);
    let read = cli.command(&["cat", "a"]).arg(Path::new(odd).join(odd)).output().unwrap();
    assert_eq!(read.stdout, b"bytes\n");
    let listed = cli.command(&["ls", "a"]).arg(odd).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains(r"/latin-\xe9/latin-\xe9"));
}

#[test]
fn the_environment_names_store_and_project_unless_it_is_empty() {
    let cli = Cli::new();
    cli.tree();
    let run = |store: &str, project: &str, words: &[&str]| {
        let mut command = cli.command(words);
        command.env("LAYERSTONE_STORE", store).env("LAYERSTONE_PROJECT", project);
        command.env("XDG_DATA_HOME", "").env("HOME", cli.scratch.path());
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run("", "", &["import", "tree"]).0, 0);
    assert!(cli.path(".local/share/layerstone/format").exists());
    assert_eq!(run("named", "public", &["import", "tree", "--tag", "a"]).0, 0);
    assert_eq!(cli.ok(&["--store", "named", "--project", "public", "images", "-q"]).lines().count(), 1);
    assert_eq!(run("named", "other", &["images"]).0, 3);
    assert_eq!(run("named", "other", &["images", "--project", "public"]).0, 0);
    let (code, said) = run("named", "x//y", &["images"]);
    assert!(code == 2 && said.contains("LAYERSTONE_PROJECT: 'x//y'"), "{said}");
}

#[test]
fn a_second_checkout_says_what_it_took_from_the_cache() {
    let cli = Cli::new();
    cli.tree();
    std::fs::write(cli.path("tree/shared"), "more than an entry holds; ".repeat(10)).unwrap();
    cli.ok(&["import", "tree", "--tag", "a"]);
    let check_out = |to| cli.ok(&["checkout", "a", to, "--cache", "cache", "--sharing", "hard-link"]);
    assert!(check_out("one").ends_with(" in files, in one\n"));
    assert!(check_out("other").ends_with(" in files, in other; 1 file from the cache\n"));
    let inode = |path| std::fs::metadata(cli.path(path)).unwrap().ino();
    assert_eq!(inode("one/shared"), inode("other/shared"));
    assert_eq!(cli.fails(&["checkout", "a", "third", "--sharing", "hard-link"]).0, 2);
}

#[test]
fn layers_are_applied_images_merged_and_their_lineage_shown() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    let layer = |name: &str, files: &[(&str, &str)]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        std::fs::write(cli.path(name), tar.into_inner().unwrap()).unwrap();
    };
    layer("ours.tar", &[("etc/.wh.motd", ""), ("etc/new", "new\n"), ("issue", "ours\n")]);
    layer("theirs.tar", &[("srv/theirs", "t\n")]);
    layer("other.tar", &[("issue", "other\n")]);
    let commit =
        |name: &str, tag: &str| cli.ok(&["commit", "--layer", name, "--base", "base", "--tag", tag, "-q"]);
    let [ours, theirs, _] = [("ours.tar", "ours"), ("theirs.tar", "theirs"), ("other.tar", "other")]
        .map(|(name, tag)| commit(name, tag).trim().to_owned());
    assert_eq!(cli.ok(&["diff", "base", "ours"]), "D /etc/motd\nA /etc/new\nM /issue  (content,mtime)\n");

    let merged = cli.ok(&["merge", "ours", "theirs", "--tag", "merged"]);
    assert_eq!(cli.ok(&["cat", last_line(&merged), "/srv/theirs"]), "t\n");
    assert_eq!(cli.ok(&["cat", "merged", "/issue"]), "ours\n");
    let output = cli.run(&["merge", "ours", "other"]);
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()),
        (Some(4), "C /issue\n")
    );
    let output = cli.run(&["merge", "ours", "other", "--json"]);
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, serde_json::json!({ "conflicts": [{ "path": "/issue" }] }));
    let (code, said) =
        cli.fails(&["commit", "--layer", "ours.tar", "--base", "base", "--max-layer-bytes", "5"]);
    assert!(code == 8 && said.contains("limit is 5"), "{said}");
    assert_eq!(cli.fails(&["commit", "--layer", "tree", "--base", "base"]).0, 1);
    assert_eq!(cli.fails(&["commit", "--layer", "ours.tar"]).0, 2);
    assert_eq!(cli.fails(&["commit", "tree", "--upper", "tree", "--base", "base"]).0, 2);

    let shown = cli.ok(&["tree"]);
    let drawn: Vec<_> = shown.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    // The one that was merged into has a child; of four the last is right below.
    assert_eq!(drawn, ["●", "├─●", "│", "├─●", "●"], "{shown}");
    assert!(shown.lines().nth(1).unwrap().contains(&format!("{ours}  ours  +")), "{shown}");
    let dot = cli.ok(&["tree", "theirs", "--dot"]);
    assert!(dot.starts_with("digraph") && dot.contains(&theirs) && !dot.contains("->"), "{dot}");
    let nodes: serde_json::Value = serde_json::from_str(&cli.ok(&["tree", "ours", "--json"])).unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 2);
}
