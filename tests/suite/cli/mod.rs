//! The program as scripts use it: output, exit codes, two at once; a file for each kind of thing that it works with.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::given::unmount_below;

mod image;
mod store;
mod tar;
mod text;

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

impl Drop for Cli {
    fn drop(&mut self) {
        unmount_below(self.scratch.path());
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
