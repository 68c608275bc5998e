//! Where a store is made, where it is not, and who may enter it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use layerstone::{ErrorKind, Store, StoreOptions};

use crate::cli::Cli;
use crate::given::Place;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn umask(umask: &str, mut command: Command) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(command.get_program());
    shell.args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command = shell;
    command.output().unwrap()
}

#[test]
fn a_new_store_is_its_owners_alone_whatever_the_umask() {
    for (mask, there) in
        [("000", None), ("022", None), ("077", None), ("022", Some(0o755)), ("002", Some(0o777))]
    {
        let cli = Cli::new();
        cli.tree();
        if let Some(mode) = there {
            fs::DirBuilder::new().create(cli.path("store")).unwrap();
            fs::set_permissions(cli.path("store"), fs::Permissions::from_mode(mode)).unwrap();
        }
        let made = umask(mask, cli.command(&["import", "tree", "--tag", "t"]));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        assert_eq!(mode(&cli.path("store")), 0o700, "umask {mask}, {there:?}");
        // What its owner decides stays.
        fs::set_permissions(cli.path("store"), fs::Permissions::from_mode(0o755)).unwrap();
        cli.ok(&["import", "tree", "--tag", "again"]);
        cli.ok(&["gc"]);
        assert_eq!(mode(&cli.path("store")), 0o755);
    }
}

/// Commands that read, or change what must be there.
const READING: [&[&str]; 19] = [
    &["images"],
    &["inspect", "x"],
    &["history", "x"],
    &["tree"],
    &["diff", "x", "y"],
    &["ls", "x"],
    &["cat", "x", "/f"],
    &["export", "x", "-o", "out.tar"],
    &["checkout", "x", "out"],
    &["commit", "tree"],
    &["merge", "x", "y"],
    &["tag", "x", "y"],
    &["untag", "x"],
    &["rm", "x"],
    &["project", "ls"],
    &["workspace", "ls"],
    &["verify"],
    &["gc"],
    &["repair"],
];

#[test]
fn only_what_fills_a_store_makes_one() {
    let cli = Cli::new();
    cli.tree();
    let before = fs::read_dir(cli.path("")).unwrap().count();
    for words in READING {
        let (code, text) = cli.fails(words);
        assert_eq!(code, 3, "{words:?}: {text}");
        assert!(text.contains("no store at") && text.contains(cli.path("store").to_str().unwrap()), "{text}");
        assert_eq!(fs::read_dir(cli.path("")).unwrap().count(), before, "{words:?}");
    }
    fs::DirBuilder::new().mode(0o750).create(cli.path("store")).unwrap();
    for words in READING.iter().filter(|words| words[0] != "repair") {
        let (code, text) = cli.fails(words);
        assert!(code == 3 && text.contains("no store at"), "{words:?}: {text}");
        assert_eq!(fs::read_dir(cli.path("store")).unwrap().count(), 0, "{words:?}");
    }
    assert_eq!(mode(&cli.path("store")), 0o750);
    cli.ok(&["project", "create", "p"]);
    cli.ok(&["images"]);
}

#[test]
fn a_store_is_made_where_its_folder_is_there_or_by_init() {
    let cli = Cli::new();
    cli.tree();
    let deep = cli.path("mistyped/three/deep");
    let deep = deep.to_str().unwrap();
    for words in [&["import", "tree", "--store", deep][..], &["project", "create", "p", "--store", deep]] {
        let (code, text) = cli.fails(words);
        assert!(code == 3 && text.contains(deep), "{text}");
        assert!(!cli.path("mistyped").exists());
    }
    assert_eq!(cli.ok(&["init", "--store", deep]).trim(), deep);
    for made in ["mistyped", "mistyped/three", "mistyped/three/deep"] {
        assert_eq!(mode(&cli.path(made)), 0o700, "{made}");
    }
    cli.ok(&["import", "tree", "--store", deep]);
    assert_eq!(cli.ok(&["init", "--store", deep]).trim(), deep, "one that is there stays");
    assert_eq!(cli.ok(&["images", "--all", "-q", "--store", deep]).lines().count(), 1);
    assert_eq!(cli.fails(&["init", "--store", "tree"]).0, 2, "other files are not among a store's");
    assert_eq!(cli.fails(&["init", "--store", "tree/issue"]).0, 2);
}

#[test]
fn an_import_of_what_is_missing_or_asked_for_wrongly_makes_no_store() {
    let cli = Cli::new();
    cli.tree();
    for (words, expected) in [
        (&["import", "missing.tar"][..], 3),
        (&["import", "missing", "--format", "dir"], 3),
        (&["import", "tree", "--exclude-from", "missing"], 3),
        (&["import", "tree/issue", "--format", "dir"], 2),
        (&["import", "tree", "--exclude", "[z-a]"], 2),
        (&["import", "tree/issue", "--exclude", "a"], 2),
        (&["import", "-", "--format", "dir"], 2),
    ] {
        let (code, text) = cli.fails(words);
        assert_eq!(code, expected, "{words:?}: {text}");
        assert!(!cli.path("store").exists(), "{words:?}");
    }
}

#[test]
fn what_fails_leaves_no_store_that_was_not_there() {
    let cli = Cli::new();
    cli.tree();
    fs::write(cli.path("README.md"), "# No tar\n".repeat(1000)).unwrap();
    fs::write(cli.path("short"), "x").unwrap();
    std::os::unix::fs::symlink("nowhere", cli.path("tree/etc/link")).unwrap();
    cli.ok(&["import", "tree", "--tag", "a", "--store", "other"]);
    let mut tar = cli.ok(&["export", "a", "--store", "other"]).into_bytes();
    tar.truncate(700);
    fs::write(cli.path("cut.tar"), tar).unwrap();
    let failing = [
        &["import", "README.md"][..],
        &["import", "short"],
        &["import", "cut.tar"],
        &["import", "tree", "--max-entries", "1"],
        &["import", "tree", "--project", "nope"],
        &["project", "create", "public"],
    ];
    for words in failing {
        let (code, text) = cli.fails(words);
        assert!(code > 0, "{words:?}: {text}");
        assert!(!cli.path("store").exists(), "{words:?}");
        // A directory that was there stays, and so does a store.
        fs::create_dir(cli.path("store")).unwrap();
        cli.fails(words);
        assert_eq!(fs::read_dir(cli.path("store")).unwrap().count(), 0, "{words:?}");
        cli.ok(&["init"]);
        cli.fails(words);
        cli.ok(&["import", "tree", "--tag", "kept"]);
        cli.fails(words);
        cli.ok(&["inspect", "kept"]);
        fs::remove_dir_all(cli.path("store")).unwrap();
    }
    // Neither do the folders of the user's data directory.
    fs::create_dir(cli.path("home")).unwrap();
    let mut command = cli.command(failing[0]);
    command.env_remove("LAYERSTONE_STORE").env_remove("XDG_DATA_HOME").env("HOME", cli.path("home"));
    assert!(!command.output().unwrap().status.success());
    assert_eq!(fs::read_dir(cli.path("home")).unwrap().count(), 0);
}

#[test]
fn nothing_is_written_among_the_files_of_a_store() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    std::os::unix::fs::symlink("store/packs/x.tar", cli.path("link")).unwrap();
    std::os::unix::fs::symlink("store", cli.path("other")).unwrap();
    for file in ["store/x.tar", "store/packs/0000000001.pack", "store/format", "other/catalog.redb", "link"] {
        for words in [&["export", "a", "--output", file][..], &["run", "--id-file", file, "a", "true"]] {
            let (code, text) = cli.fails(words);
            assert!(code != 0 && text.contains(file), "{words:?}: {code}: {text}");
        }
    }
    assert!(!cli.path("store/packs/x.tar").exists() && !cli.path("store/x.tar").exists());
    cli.ok(&["verify"]);
    cli.ok(&["export", "a", "--output", "x.tar"]);
    // A workspace's files are the user's.
    cli.ok(&["workspace", "create", "a", "--name", "w"]);
    let inside = format!("{}/x.tar", cli.ok(&["workspace", "path", "w"]).trim());
    cli.ok(&["export", "a", "--output", &inside]);
    assert!(Path::new(&inside).exists());
    cli.ok(&["workspace", "discard", "w"]);
}

/// Whatever does not fit any more: the first files of a store, or what is put into it.
#[test]
fn a_disk_that_is_too_small_is_left_as_it_was() {
    if !crate::system::is_on() {
        return;
    }
    let cli = Cli::new();
    cli.tree();
    fs::write(cli.path("tree/noise"), crate::roundtrip::noise(2 << 20, 7)).unwrap();
    fs::create_dir(cli.path("small")).unwrap();
    let (mut failed, mut done) = (0, 0);
    for kib in [4, 8, 16, 32, 64, 128, 256, 512, 600, 1_024, 1_536, 2_048, 16_384] {
        let size = format!("size={kib}k");
        let small = cli.path("small");
        let words = ["-t", "tmpfs", "-o", &size, "tmpfs"].map(Path::new);
        crate::system::program("mount", &[&words[..], &[&small]].concat());
        let store = small.join("a/store");
        let place = store.to_str().unwrap();
        let left = |place: &Path| fs::read_dir(place).unwrap().count();
        let mut outcomes = Vec::new();
        for words in [&["import", "tree", "--store", place][..], &["init", "--store", place]] {
            if words[0] == "import" {
                fs::create_dir(small.join("a")).unwrap();
            }
            let is_done = cli.run(words).status.success();
            let kept = if words[0] == "import" { &small.join("a") } else { &small };
            outcomes.push((is_done, is_done || left(kept) == 0));
            let _ = fs::remove_dir_all(small.join("a"));
        }
        crate::system::unmount(&small);
        assert!(outcomes.iter().all(|(_, is_clean)| *is_clean), "{kib}: {outcomes:?}");
        let (one, other): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(is_done, _)| *is_done);
        (done, failed) = (done + one.len(), failed + other.len());
    }
    assert!(failed > 5 && done > 1, "{failed} failed, {done} did not");
}

#[test]
fn what_only_reads_makes_no_default_project() {
    let cli = Cli::new();
    cli.tree();
    let image = cli.ok(&["import", "tree", "--project", "public", "--tag", "base", "-q"]);
    assert_eq!(cli.ok(&["images", "-q"]), image);
    assert_eq!(cli.ok(&["cat", "base", "/issue"]), "one\n");
    for words in [&["inspect", "base"][..], &["history", "base"], &["ls", "base"], &["diff", "base", "base"]]
    {
        cli.ok(words);
    }
    cli.ok(&["export", "base", "-o", "base.tar"]);
    assert!(!cli.ok(&["project", "ls"]).contains("default"));
}

#[test]
fn the_users_data_directory_is_made_by_what_fills_a_store() {
    let cli = Cli::new();
    cli.tree();
    let run = |words: &[&str]| {
        let mut command = cli.command(words);
        command.env_remove("LAYERSTONE_STORE").env_remove("XDG_DATA_HOME").env("HOME", cli.path("home"));
        command.output().unwrap().status.code().unwrap()
    };
    fs::create_dir(cli.path("home")).unwrap();
    assert_eq!(run(&["images"]), 3);
    assert_eq!(fs::read_dir(cli.path("home")).unwrap().count(), 0);
    assert_eq!(run(&["import", "tree"]), 0);
    assert!(cli.path("home/.local/share/layerstone/format").exists());
    assert_eq!(run(&["images"]), 0);
}

#[test]
fn the_library_says_whether_a_store_is_made() {
    let place = Place::new();
    let there = StoreOptions::default().create(false);
    for path in ["absent", "absent/absent", "empty"] {
        if path == "empty" {
            fs::create_dir(place.path(path)).unwrap();
        }
        let error = there.clone().open(place.path(path)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains(place.path(path).to_str().unwrap()), "{error}");
    }
    assert!(!place.path("absent").exists());
    let error = Store::open(place.path("absent/absent")).unwrap_err();
    assert!(error.is_not_found() && !place.path("absent").exists(), "{error}");
    Store::open(place.path("absent")).unwrap();
    there.open(place.path("absent")).unwrap();
    fs::write(place.path("file"), "").unwrap();
    assert_eq!(Store::open(place.path("file")).unwrap_err().kind(), ErrorKind::Invalid);
}

/// The program as a user without privileges, and a place that this one may use.
fn as_nobody(cli: &Cli, words: &[&str]) -> Command {
    let program = cli.path("layerstone");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_layerstone"), &program).unwrap();
        fs::set_permissions(cli.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(program);
    command.args(words).env("LAYERSTONE_STORE", cli.path("store")).current_dir(cli.path(""));
    command
}

#[test]
fn no_umask_takes_a_store_from_its_owner() {
    if !crate::system::is_on() {
        return;
    }
    let cli = Cli::new();
    cli.tree();
    for words in [
        &["import", "tree", "--tag", "base"][..],
        &["checkout", "base", "copy"],
        &["workspace", "create", "base", "--name", "w"],
        &["workspace", "commit", "w"],
        &["commit", "copy"],
        &["export", "base", "-o", "base.tar"],
        &["import", "base.tar"],
        &["gc", "--full"],
        &["verify"],
        &["repair"],
    ] {
        let output = umask("777", as_nobody(&cli, words));
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(mode(&cli.path("store")), 0o700);
    assert_eq!(mode(&cli.path("store/format")), 0o600);
}

#[test]
fn verify_says_that_a_store_is_open_to_others() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree"]);
    let said = || {
        let output = cli.run(&["verify", "--quick"]);
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(said(), "");
    fs::set_permissions(cli.path("store"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(said().contains("open to others") && said().contains("chmod 700"), "{}", said());
    let report: serde_json::Value = serde_json::from_str(&cli.ok(&["verify", "--json"])).unwrap();
    assert_eq!(report["is_open_to_others"], true);
}

#[test]
fn whoever_may_not_read_a_file_is_told_what_he_can_do() {
    if !crate::system::is_on() {
        return;
    }
    let cli = Cli::new();
    cli.tree();
    fs::set_permissions(cli.path("tree/issue"), fs::Permissions::from_mode(0o600)).unwrap();
    let as_root_of_a_namespace = |command: &Command| {
        let mut outer = Command::new("setpriv");
        let words: Vec<_> = command.get_args().collect();
        let (privileges, program) = words.split_at(4);
        outer.args(privileges).args(["unshare", "--user", "--map-root-user"]).args(program);
        outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        outer.current_dir(cli.path("")).output().unwrap()
    };
    for rule in ["refuse", "keep"] {
        let mut command = as_nobody(&cli, &["import", "tree", "--changing", rule]);
        for (output, expected) in [
            (command.output().unwrap(), "leave it out (--exclude), or import as a user who may read it"),
            (as_root_of_a_namespace(&command), "lets not even root read it"),
        ] {
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("tree/issue") && said.contains(expected), "{said}");
        }
    }
}
