//! Directories with other file systems mounted below, and parts that are left out. Mounts need root, and programs that
//! `.ci/run` installs: those tests run where `LAYERSTONE_SYSTEM_TESTS=1` is set.

use std::fs;
use std::path::Path;
use std::process::Command;

use layerstone::{ErrorKind, Excludes, Image, ImportOptions, Project, Store, TreePath, WriteReport};

use crate::given::{Place, project, read, write_files};
use crate::system;

fn given() -> (Place, Store, Project) {
    let place = Place::new();
    let store = Store::open(place.path("store")).unwrap();
    let project = project(&store, "p");
    (place, store, project)
}

fn without(patterns: &[&str]) -> ImportOptions {
    let mut exclude = Excludes::new();
    for pattern in patterns {
        exclude.add(pattern).unwrap();
    }
    ImportOptions { exclude, ..ImportOptions::default() }
}

fn one_file_system() -> ImportOptions {
    ImportOptions { one_file_system: true, ..ImportOptions::default() }
}

fn paths(texts: &[&str]) -> Vec<TreePath> {
    texts.iter().map(|text| TreePath::parse(text.as_bytes()).unwrap()).collect()
}

fn find(project: &Project, report: &WriteReport) -> Image {
    project.find(&report.image.into()).unwrap()
}

/// Every path of an image.
fn list(image: &Image) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![TreePath::root()];
    while let Some(directory) = pending.pop() {
        for entry in image.list(&directory).unwrap() {
            found.push(entry.path.to_string());
            if entry.kind == layerstone::EntryKind::Directory {
                pending.push(entry.path);
            }
        }
    }
    found.sort();
    found
}

const FILES: [(&str, &[u8]); 6] = [
    ("a.log", b"log"),
    ("etc/conf", b"conf"),
    ("var/cache/x", b"x"),
    ("var/lib/y", b"y"),
    ("var/log/b.log", b"log"),
    ("var/log/keep.log", b"keep"),
];

#[test]
fn what_is_excluded_is_not_in_the_image() {
    let (place, _, project) = given();
    let source = place.directory("source", &FILES);
    for (patterns, expected, excluded) in [
        (
            &["*.log", "!keep.log"][..],
            &[
                "/etc",
                "/etc/conf",
                "/var",
                "/var/cache",
                "/var/cache/x",
                "/var/lib",
                "/var/lib/y",
                "/var/log",
                "/var/log/keep.log",
            ][..],
            2,
        ),
        (&["/var"], &["/a.log", "/etc", "/etc/conf"], 1),
        (&["/var/*", "!/var/lib"], &["/a.log", "/etc", "/etc/conf", "/var", "/var/lib", "/var/lib/y"], 2),
        // What is below a directory that is left out can't be taken in again.
        (&["/var/", "!/var/lib"], &["/a.log", "/etc", "/etc/conf"], 1),
        (&["*"], &[], 3),
        (&["/**"], &[], 3),
    ] {
        let report = project.import_directory(&source, &without(patterns)).unwrap();
        assert_eq!(list(&find(&project, &report)), expected, "{patterns:?}");
        assert_eq!(report.source.excluded, excluded, "{patterns:?}");
    }
}

#[test]
fn the_next_import_leaves_out_what_it_is_asked_to_whatever_is_known() {
    let (place, store, project) = given();
    let source = place.directory("source", &FILES);
    // All names of one inode: which of them are left out does not show in it.
    for name in ["etc/link", "var/cache/link", "zz"] {
        fs::hard_link(source.join("etc/conf"), source.join(name)).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let cases: [&[&str]; 8] =
        [&[], &["/etc"], &[], &["*.log"], &["/var"], &["conf"], &["link", "/zz"], &["/etc/link"]];
    for patterns in cases {
        let options = without(patterns);
        let known = project.import_directory(&source, &options).unwrap();
        let options = ImportOptions { reread: true, ..options };
        let all = project.import_directory(&source, &options).unwrap();
        assert_eq!(known.image, all.image, "{patterns:?}");
    }
    let again = [1, 2].map(|_| project.import_directory(&source, &without(&[])).unwrap().examined);
    assert_eq!(again, [4, 0], "the names of the inode of which one was left out, and then nothing");
    assert!(store.verify().unwrap().faults.is_empty());
}

#[test]
fn the_same_content_is_the_same_image_however_it_was_chosen() {
    let (place, _, project) = given();
    let source = place.directory("source", &[("a", b"a"), ("b", b"b")]);
    crate::given::set_mtime(&source, 1_000_000_000, 0);
    let left_out = project.import_directory(&source, &without(&["b"])).unwrap();
    fs::remove_file(source.join("b")).unwrap();
    crate::given::set_mtime(&source, 1_000_000_000, 0);
    let removed = project.import_directory(&source, &ImportOptions::default()).unwrap();
    assert_eq!(left_out.image, removed.image);
}

#[test]
fn a_directory_that_can_not_be_read_can_be_left_out() {
    let (place, _, project) = given();
    let source = place.directory("source", &[("open", b"x"), ("closed/secret", b"x")]);
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(source.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        let error = project.import_directory(&source, &ImportOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(
            error.to_string().contains("source/closed") && error.to_string().contains("--exclude"),
            "{error}"
        );
    }
    let report = project.import_directory(&source, &without(&["/closed"])).unwrap();
    assert_eq!(list(&find(&project, &report)), ["/open"]);
}

#[test]
fn the_store_is_no_part_of_what_it_imports() {
    let place = Place::new();
    let source = place.directory("source", &[("a", b"a")]);
    fs::create_dir_all(source.join("var/lib")).unwrap();
    let store = Store::open(source.join("var/lib/store")).unwrap();
    let project = project(&store, "p");
    let [base, _] = [1, 2].map(|_| {
        let report = project.import_directory(&source, &ImportOptions::default()).unwrap();
        assert_eq!(list(&find(&project, &report)), ["/a", "/var", "/var/lib"]);
        assert_eq!(report.source.store.as_slice(), paths(&["var/lib/store"]));
        report.image
    });
    std::os::unix::fs::symlink(source.join("var/lib/store/packs"), place.path("link")).unwrap();
    let parts = ["store", "store/packs", "store/packs/../segments", "store/workspaces"];
    fs::create_dir(source.join("var/lib/store/workspaces")).unwrap();
    for part in parts.map(|part| source.join("var/lib").join(part)).into_iter().chain([place.path("link")]) {
        let error = project.import_directory(&part, &ImportOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        let options = layerstone::CommitOptions { base: Some(base.into()), ..Default::default() };
        assert_eq!(project.commit(&part, &options).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(project.images(&layerstone::ListOptions::default()).unwrap().images.len(), 1);
}

fn mount(words: &[&str], target: &Path) {
    let status = Command::new("mount").args(words).arg(target).status().unwrap();
    assert!(status.success(), "mount {words:?}");
}

/// A directory with a file system, a bind mount of a directory of the same file system, one of a file, and one mount in
/// another.
fn with_mounts(place: &Place) -> std::path::PathBuf {
    let source =
        place.directory("source", &[("a", b"a"), ("bound/own", b"x"), ("conf", b"own"), ("m/own", b"x")]);
    let other = place.directory("other", &[("dir/foreign", b"foreign"), ("conf", b"foreign")]);
    mount(&["-t", "tmpfs", "tmpfs"], &source.join("m"));
    write_files(&source.join("m"), &[("inner/file", b"file")]);
    mount(&["-t", "tmpfs", "tmpfs"], &source.join("m/inner"));
    mount(&["--bind", other.join("dir").to_str().unwrap()], &source.join("bound"));
    mount(&["--bind", other.join("conf").to_str().unwrap()], &source.join("conf"));
    source
}

#[test]
fn mounts_below_are_said_or_left_out() {
    if !system::is_on() {
        return;
    }
    let (place, store, project) = given();
    let source = with_mounts(&place);
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let everything = ["/a", "/bound", "/bound/foreign", "/conf", "/m", "/m/inner"];
    // In each order, since the second of an import knows what the first has read.
    for _ in 0..2 {
        let report = project.import_directory(&source, &ImportOptions::default()).unwrap();
        assert_eq!(list(&find(&project, &report)), everything);
        assert_eq!(report.source.mounts_read, paths(&["bound", "conf", "m", "m/inner"]));
        assert_eq!(read(&find(&project, &report), "/conf").unwrap(), b"foreign");

        let report = project.import_directory(&source, &one_file_system()).unwrap();
        assert_eq!(list(&find(&project, &report)), ["/a", "/bound", "/conf", "/m"]);
        assert_eq!(report.source.mounts_left_out, paths(&["bound", "conf", "m"]));
        assert_eq!(read(&find(&project, &report), "/conf").unwrap(), b"", "a mount point that is a file");
    }
    let options = ImportOptions { one_file_system: true, ..without(&["/m", "/conf"]) };
    let report = project.import_directory(&source, &options).unwrap();
    assert_eq!(report.source.mounts_left_out, paths(&["bound"]));
    // The root may be a mount point itself.
    let report = project.import_directory(source.join("m"), &one_file_system()).unwrap();
    assert_eq!(list(&find(&project, &report)), ["/inner"]);
    assert!(store.verify().unwrap().faults.is_empty());
}

#[test]
fn a_subvolume_is_part_of_the_file_system_that_it_lies_in() {
    if !system::is_on() {
        return;
    }
    let (place, _, project) = given();
    let image = place.path("btrfs");
    fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    let run = |program: &str, words: &[&str], path: &Path| {
        let output = Command::new(program).args(words).arg(path).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run("mkfs.btrfs", &["-q"], &image);
    let source = place.directory("source", &[]);
    run("mount", &["-o", "loop", image.to_str().unwrap()], &source);
    run("btrfs", &["subvolume", "create"], &source.join("home"));
    fs::write(source.join("home/file"), "x").unwrap();
    let report = project.import_directory(&source, &one_file_system()).unwrap();
    assert_eq!(list(&find(&project, &report)), ["/home", "/home/file"]);
    assert_eq!(report.source.mounts_left_out, []);
}

#[test]
fn the_command_excludes_by_options_and_files_and_says_what_it_left_out() {
    let cli = crate::cli::Cli::new();
    write_files(&cli.path("tree"), &FILES);
    let patterns = "\u{feff}# what changes\r\n*.log\r\n/var/cache/\r\n";
    fs::write(cli.path("patterns"), patterns).unwrap();
    let words = ["import", "tree", "--exclude-from", "patterns", "--exclude", "!keep.log", "--tag", "t"];
    cli.ok(&words);
    let names = |path: &str| -> Vec<String> {
        let listed = cli.ok(&["ls", "t", path, "--json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let paths = listed.as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap().to_owned());
        paths.collect()
    };
    assert_eq!(names("/"), ["/etc", "/var"]);
    assert_eq!(names("/var"), ["/var/lib", "/var/log"]);
    assert_eq!(names("/var/log"), ["/var/log/keep.log"]);
    let json: serde_json::Value =
        serde_json::from_str(&cli.ok(&["import", "tree", "--exclude", "/var", "--json"])).unwrap();
    assert_eq!(json["source"]["excluded"], 1);

    for (words, code, text) in [
        (&["import", "tree", "--exclude", "[z-a]"][..], 2, "[z-a]"),
        (&["import", "tree", "--exclude", ""], 2, "names nothing"),
        (&["import", "tree", "--exclude-from", "absent"], 3, "absent"),
        (&["import", "tree", "--exclude-from", "/dev/zero"], 2, "more than 16 MiB"),
        (&["import", "patterns", "--exclude", "x"], 2, "for directories"),
        (&["import", "tree", "--exclude", "tree/etc"], 2, "'tree/etc' begins with the directory itself"),
    ] {
        let (found, error) = cli.fails(words);
        assert!(found == code && error.contains(text), "{words:?}: {found} {error}");
    }

    // The store lies in what it imports.
    let output = cli.run(&["import", ".", "--tag", "all"]);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && notes == "/store: left out: it is the store itself\n", "{notes}");
}

#[test]
fn the_command_names_mounts_that_it_read_or_left_out() {
    if !system::is_on() {
        return;
    }
    let (place, _, _) = given();
    let source = with_mounts(&place);
    let cli = crate::cli::Cli::new();
    let said = |words: &[&str]| {
        let output = cli.run(&[&["import", source.to_str().unwrap()], words].concat());
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let read = "What is mounted at 4 paths (/bound, /conf, /m, /m/inner) was read, too; ";
    let more = "unmount it, or import with --one-file-system, to leave it out.\n";
    assert_eq!(said(&[]), format!("{read}{more}"));
    // A commit has no such option.
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    cli.ok(&["checkout", "a", "work"]);
    fs::create_dir(cli.path("work/m")).unwrap();
    mount(&["-t", "tmpfs", "tmpfs"], &cli.path("work/m"));
    let output = cli.run(&["commit", "work"]);
    system::unmount(&cli.path("work/m"));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "What is mounted at 1 path (/m) was read, too; unmount it to leave it out.\n");
    let left_out = "What is mounted at 3 paths (/bound, /conf, /m) was left out.\n";
    assert_eq!(said(&["--one-file-system"]), left_out);
}

#[test]
fn a_pattern_that_names_the_directory_itself_is_refused() {
    let (place, _, project) = given();
    let source = place.directory("source", &FILES);
    std::os::unix::fs::symlink(&source, place.path("link")).unwrap();
    let absolute = source.display();
    for (from, pattern, meant) in [
        (&source, format!("{absolute}/etc"), "give '/etc'"),
        (&source, format!("{absolute}/var/cache/"), "give '/var/cache/'"),
        (&source, format!("{absolute}/*.log"), "give '/*.log'"),
        (&source, format!("!{absolute}/etc"), "give '!/etc'"),
        (&source, format!("{absolute}"), "give '/*'"),
        (&place.path("link"), format!("{absolute}/etc"), "give '/etc'"),
        (&place.path("link"), format!("{}/etc", place.path("link").display()), "give '/etc'"),
    ] {
        let error = project.import_directory(from, &without(&[&pattern])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{pattern}");
        assert!(error.to_string().contains(&pattern) && error.to_string().contains(meant), "{error}");
    }
    // Of a file of patterns, too, and with a store that is not made for it.
    fs::write(place.path("patterns"), format!("*.log\n{absolute}/etc\n")).unwrap();
    let cli = crate::cli::Cli::new();
    let words = ["import", source.to_str().unwrap(), "--exclude-from"];
    let (code, error) = cli.fails(&[&words[..], &[place.path("patterns").to_str().unwrap()]].concat());
    assert!(code == 2 && error.contains("give '/etc'"), "{error}");
    assert!(!cli.path("store").exists());
    // What matches is no slip, and neither is a path of somewhere else.
    let inner = absolute.to_string();
    write_files(&source.join(inner.trim_start_matches('/')), &[("etc/conf", b"inner")]);
    let report = project.import_directory(&source, &without(&[&format!("{inner}/etc"), "/srv/x"])).unwrap();
    assert_eq!(report.source.excluded, 1);
}

/// Mounts a FUSE of another user, which not even root may look at; nobody answers there.
fn mount_fuse(target: &Path) {
    let rootmode = if target.is_dir() { "40000" } else { "100000" };
    let script = format!(
        "exec 3<>/dev/fuse; mount -i -t fuse -o fd=3,rootmode={rootmode},user_id=65534,group_id=65534 none \"$0\""
    );
    let status = Command::new("sh").args(["-e", "-c", &script]).arg(target).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_mount_that_nobody_may_look_at_is_left_out_or_named() {
    if !system::is_on() {
        return;
    }
    let (place, _, project) = given();
    let source = place.directory("source", &[("a", b"a"), ("b/c", b"c")]);
    for (name, listed) in [("b", &["/a", "/b"][..]), ("a", &["/a", "/b", "/b/c"])] {
        mount_fuse(&source.join(name));
        // In each order, since the second of an import knows what the first has read.
        for _ in 0..2 {
            let report = project.import_directory(&source, &one_file_system()).unwrap();
            assert_eq!(list(&find(&project, &report)), listed);
            assert_eq!(report.source.mounts_left_out, paths(&[name]));
            let error = project.import_directory(&source, &ImportOptions::default()).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(source.join(name).to_str().unwrap()), "{text}");
            assert!(
                text.contains("something is mounted there") && text.contains("--one-file-system"),
                "{text}"
            );
        }
        let excluded = project.import_directory(&source, &without(&[&format!("/{name}")]));
        assert_eq!(
            excluded.is_ok(),
            name == "b",
            "a name must be looked up to know whether it is a directory"
        );
        system::unmount(&source.join(name));
    }
}
