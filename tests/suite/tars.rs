//! Tars as programs write them, cut them and take them for others: what becomes of the store, by `import` and by
//! `commit --layer`, from files and from pipes.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::cli::Cli;
use crate::raw_tar::{archive, directory, file, hard_link, symlink};
use crate::system::is_on;

pub(crate) struct Given {
    pub(crate) cli: Cli,
}

/// The ways in which a tar comes in. All but the first two read the file.
pub(crate) const WAYS: [&[&str]; 4] = [
    &["import", "-", "--tag", "x"],
    &["commit", "--layer", "-", "--base", "base", "--tag", "x"],
    &["import", "given.tar", "--tag", "x"],
    &["commit", "--layer", "given.tar", "--base", "base", "--tag", "x"],
];

impl Given {
    pub(crate) fn new() -> Self {
        let cli = Cli::new();
        cli.tree();
        cli.ok(&["import", "tree", "--tag", "base"]);
        Self { cli }
    }

    /// A command that finds these bytes on standard input and in `given.tar`.
    pub(crate) fn run(&self, words: &[&str], tar: &[u8]) -> Output {
        std::fs::write(self.cli.path("given.tar"), tar).unwrap();
        let mut command = self.cli.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(tar));
            child.wait_with_output().unwrap()
        })
    }

    /// Refused with this exit code and message however it comes in: no image is there afterwards, and no tag.
    #[track_caller]
    pub(crate) fn refused(&self, tar: &[u8], code: i32, message: &str) {
        for way in WAYS {
            let output = self.run(way, tar);
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), text.contains(message)), (Some(code), true), "{way:?}: {text}");
            assert_eq!(self.cli.ok(&["images", "-aq"]).lines().count(), 1, "{way:?}");
            assert_eq!(self.cli.fails(&["inspect", "x"]).0, 3, "{way:?}");
        }
    }

    /// Taken however it comes in.
    #[track_caller]
    pub(crate) fn taken(&self, tar: &[u8]) {
        for way in WAYS {
            let output = self.run(way, tar);
            assert!(output.status.success(), "{way:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// Imports a tar, and gives what is in the image.
    #[track_caller]
    pub(crate) fn import(&self, tar: &[u8]) -> Vec<String> {
        let output = self.run(&["import", "-", "--tag", "x"], tar);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.list("x")
    }

    /// What is in an image, a line for each path but the root: directories as `a/`, links as `a -> b` and `a = b`.
    pub(crate) fn list(&self, image: &str) -> Vec<String> {
        let exported = self.cli.run(&["export", image, "-o", "-"]);
        assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
        let line = |entry: tar::Entry<'_, &[u8]>| {
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let target = entry.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
            let path = path.trim_start_matches("./").to_owned();
            match (target, entry.header().entry_type()) {
                (Some(target), tar::EntryType::Link) => {
                    format!("{path} = {}", target.trim_start_matches("./"))
                }
                (Some(target), _) => format!("{path} -> {target}"),
                (None, _) => path,
            }
        };
        let mut archive = tar::Archive::new(&*exported.stdout);
        let entries = archive.entries().unwrap().map(|entry| line(entry.unwrap()));
        entries.filter(|line| !line.is_empty()).collect()
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A program's standard output, which is a pipe.
fn piped(directory: &std::path::Path, program: &str, words: &[&str]) -> Vec<u8> {
    let output = Command::new(program).current_dir(directory).args(words).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn what_begins_with_zeros_and_is_no_tar_makes_no_image() {
    let given = Given::new();
    let noise = crate::roundtrip::noise(5_000, 1);
    for zeros in [512, 1_024, 32_768, 65_536, 1 << 20] {
        let image = [&vec![0; zeros], &noise[..]].concat();
        for bytes in [image.clone(), gzip(&image), zstd(&image)] {
            given.refused(&bytes, 2, "is no tar archive: it begins with zeros");
        }
    }
    given.refused(&[], 2, "is empty");
    given.refused(&gzip(&[]), 2, "is empty");
    given.refused(&noise, 2, "is no tar archive");
    for zeros in [1_024, 10_240] {
        assert_eq!(given.import(&vec![0; zeros]), [""; 0], "an archive of nothing");
    }
}

#[test]
fn an_image_of_a_file_system_is_no_tar() {
    if !is_on() {
        return;
    }
    let given = Given::new();
    for (program, words) in [("mkfs.ext4", &["-q", "-F"][..]), ("mkfs.btrfs", &["-q"]), ("mkfs.xfs", &["-q"])]
    {
        let disk = given.cli.path("disk");
        std::fs::File::create(&disk).unwrap().set_len(320 << 20).unwrap();
        piped(disk.parent().unwrap(), program, &[words, &["disk"]].concat());
        for words in [&["import", "disk", "--tag", "x"][..], &["commit", "--layer", "disk", "--base", "base"]]
        {
            let (code, message) = given.cli.fails(words);
            assert!(code == 2 && message.contains("is no tar archive"), "{program}: {code}: {message}");
        }
        std::fs::remove_file(disk).unwrap();
    }
    assert_eq!(given.cli.ok(&["images", "-aq"]).lines().count(), 1);
}

#[test]
fn zeros_behind_a_compressed_tar_are_padding_and_other_bytes_are_named() {
    let given = Given::new();
    let tar = archive(&[file("f", "text")]);
    for packed in [gzip(&tar), zstd(&tar)] {
        let at = packed.len() + 700;
        let padded = [&packed[..], &[0; 700]].concat();
        given.refused(&[&padded[..], b"junk"].concat(), 2, &format!("the first 0x6a at byte {at}"));
    }
    for packed in [gzip(&tar), zstd(&tar)] {
        given.taken(&[packed, vec![0; 700]].concat());
    }
}

/// bsdtar, which is tar on macOS, fills what it writes to a pipe.
#[test]
fn what_bsdtar_compresses_to_a_pipe_is_read() {
    if !is_on() {
        return;
    }
    let given = Given::new();
    let tree = given.cli.path("tree");
    for compression in ["-z", "--zstd"] {
        let tar = piped(&tree, "bsdtar", &["-c", compression, "-f", "-", "."]);
        assert_eq!(tar.len() % 10_240, 0, "it is padded");
        assert_eq!(given.import(&tar), ["etc/", "etc/motd", "issue"]);
        given.taken(&tar);
    }
}

#[test]
fn a_time_before_1970_as_the_tar_crate_writes_it() {
    let given = Given::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mtime((-1_000_i64).cast_unsigned());
    builder.append_data(&mut header, "old", &b""[..]).unwrap();
    given.taken(&builder.into_inner().unwrap());
    let listed: serde_json::Value =
        serde_json::from_str(&given.cli.ok(&["--json", "ls", "x", "/old"])).unwrap();
    assert_eq!(listed[0]["mtime_seconds"], -1_000);
}

#[test]
fn an_acl_of_numbers_is_taken_from_the_attribute() {
    if !is_on() {
        return;
    }
    let given = Given::new();
    let tree = given.cli.path("tree");
    // User 7 has a name that GNU tar writes in the text; 12345 has none.
    piped(&tree, "setfacl", &["-m", "u:7:rw,u:12345:r,g:1:x", "issue"]);
    piped(&tree, "setfacl", &["-d", "-m", "u:7:rwx", "etc"]);
    let tar = piped(&tree, "tar", &["--acls", "--xattrs", "--xattrs-include=*", "-cf", "-", "."]);
    given.taken(&tar);
    given.cli.ok(&["import", "tree", "--tag", "tree"]);
    assert_eq!(given.cli.ok(&["diff", "tree", "x"]), "", "the numbers are the tree's");
    given.import(&tar);
    assert_eq!(given.cli.ok(&["diff", "tree", "x"]), "");
    let names = piped(&tree, "tar", &["--acls", "-cf", "-", "."]);
    let output = given.run(&["import", "-"], &names);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), message.contains("pack it with --xattrs")),
        (Some(7), true),
        "{message}"
    );
}

#[test]
fn an_acl_has_its_mask_whatever_the_header_s_mode() {
    if !is_on() {
        return;
    }
    let given = Given::new();
    let tree = given.cli.path("tree");
    // bsdtar has the group's own permissions in the header, where the kernel shows the mask.
    for (acl, name) in
        [("u:54321:rw,m::r", "issue"), ("u:54321:rwx,g::r,m::rx", "etc"), ("u:54321:r,g::r,m::rw", "motd")]
    {
        std::fs::write(tree.join("motd"), "motd").unwrap();
        piped(&tree, "setfacl", &["-m", acl, name]);
    }
    let kept = piped(&tree, "getfacl", &["-nR", "."]);
    let tar = piped(&tree, "bsdtar", &["-cf", "-", "."]);
    given.import(&tar);
    given.cli.ok(&["checkout", "x", "out"]);
    let out = piped(&given.cli.path("out"), "getfacl", &["-nR", "."]);
    assert_eq!(String::from_utf8(out).unwrap(), String::from_utf8(kept).unwrap());
    given.cli.ok(&["commit", "out", "--tag", "again"]);
    assert_eq!(given.cli.ok(&["diff", "x", "again"]), "");
}

#[test]
fn members_go_where_links_of_the_same_tar_lead() {
    let given = Given::new();
    for target in ["usr/lib", "/usr/lib", "usr/../usr/lib"] {
        let tar = archive(&[
            directory("usr/lib/"),
            file("usr/lib/old", "old"),
            symlink("lib", target),
            file("lib/y", "y"),
            directory("lib"),
            hard_link("z", "lib/y"),
            hard_link("lib/y", "usr/lib/y"),
        ]);
        let lib = format!("lib -> {target}");
        assert_eq!(
            given.import(&tar),
            [&lib, "usr/", "usr/lib/", "usr/lib/old", "usr/lib/y", "z = usr/lib/y"]
        );
        given.taken(&tar);
        // A layer gives the same.
        let listed = given.list("x");
        assert!(listed.contains(&lib) && listed.contains(&"z = usr/lib/y".to_owned()), "{listed:?}");
        assert_eq!(given.cli.ok(&["cat", "x", "/lib/old"]), "old");
    }
}

#[test]
fn a_link_that_leads_to_no_directory_of_the_tree_is_refused() {
    let given = Given::new();
    for (target, message) in [
        ("nowhere", "'/lib/y': goes through the link /lib, which leads to /nowhere, where nothing is"),
        ("/../usr", "out of the tree"),
        ("lib", "through more than 40 links"),
        ("f", "to /f, which is no directory"),
    ] {
        let tar = archive(&[directory("usr"), file("f", "f"), symlink("lib", target), file("lib/y", "y")]);
        given.refused(&tar, 2, message);
    }
    let late = archive(&[file("lib/y", "y"), symlink("lib", "usr")]);
    given.refused(&late, 2, "'/lib': is a symbolic link over a directory that already has /lib/y");
    // A file that no link leads to gives way, in a layer too.
    given.taken(&archive(&[file("a", "a"), file("a/b", "b")]));
    assert_eq!(given.list("x"), ["a/", "a/b", "etc/", "etc/motd", "issue"]);
}

#[test]
fn whiteouts_of_a_layer_go_through_its_links() {
    let given = Given::new();
    given.import(&archive(&[
        file("usr/lib/a", "a"),
        file("usr/lib/b", "b"),
        file("dir/c", "c"),
        symlink("old", "dir"),
    ]));
    let layer = archive(&[
        symlink("lib", "usr/lib"),
        file("lib/.wh.a", ""),
        file("old/.wh..wh..opq", ""),
        file("lib/new", ""),
    ]);
    let output = given.run(&["commit", "--layer", "-", "--base", "x", "--tag", "y"], &layer);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        given.list("y"),
        ["dir/", "lib -> usr/lib", "old -> dir", "usr/", "usr/lib/", "usr/lib/b", "usr/lib/new"]
    );
}

/// GNU tar writes it for a file with two names that it is given twice.
#[test]
fn a_hard_link_of_a_name_to_itself_changes_nothing() {
    let given = Given::new();
    given.refused(&archive(&[hard_link("nowhere", "nowhere")]), 2, "is a hard link to /nowhere");
    let tar = archive(&[
        file("a", "a"),
        hard_link("b", "a"),
        hard_link("a", "a"),
        hard_link("b", "b"),
        hard_link("a", "b"),
    ]);
    assert_eq!(given.import(&tar), ["a", "b = a"]);
    given.taken(&tar);
    let tree = given.cli.path("tree");
    std::fs::hard_link(tree.join("issue"), tree.join("other")).unwrap();
    let tar = piped(&tree, "tar", &["-cf", "-", "issue", "issue", "other", "issue"]);
    assert_eq!(given.import(&tar), ["issue", "other = issue"]);
}

#[test]
fn a_tar_without_its_end_mark_is_said_and_refused_if_asked() {
    let given = Given::new();
    let parts: Vec<_> = (0..300).map(|number| file(format!("f{number}"), "text")).collect();
    let cut = parts[..10].concat();
    for tar in [cut.clone(), gzip(&cut), zstd(&cut), [&cut[..], &[0; 512]].concat()] {
        for way in WAYS {
            let words = [way, &["--require-end"]].concat();
            let output = given.run(&words, &tar);
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains("ends without the two zero blocks"), "{text}");
            assert_eq!(given.cli.fails(&["inspect", "x"]).0, 3, "{way:?}");
        }
    }
    for way in WAYS {
        let output = given.run(way, &cut);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains("may have been cut short"), "{way:?}: {text}");
        let output = given.run(&[&["--json"], way].concat(), &cut);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["has_end_mark"], false, "{way:?}");
        let words = [way, &["--require-end"]].concat();
        let output = given.run(&words, &archive(&parts));
        assert!(output.status.success() && output.stderr.is_empty(), "{way:?}: {output:?}");
    }
    let imported: serde_json::Value =
        serde_json::from_str(&given.cli.ok(&["--json", "import", "tree"])).unwrap();
    assert_eq!(imported.get("has_end_mark"), None, "no tar was read");
    assert_eq!(given.cli.fails(&["commit", "tree", "--base", "base", "--require-end"]).0, 2);
}

#[test]
fn a_saved_image_is_no_root_file_system() {
    let given = Given::new();
    let manifest = r#"[{"Config":"c.json","RepoTags":null,"Layers":["l/layer.tar"]}]"#;
    let copied = r#"{"schemaVersion":2,"config":{},"layers":[{"digest":"sha256:00","size":1}]}"#;
    let layout = r#"{"imageLayoutVersion": "1.0.0"}"#;
    let repositories = &format!(r#"{{"app":{{"latest":"{}"}}}}"#, "a1".repeat(32));
    let blob = || file("l/layer.tar", crate::roundtrip::noise(2 << 20, 1));
    for (name, content) in [
        ("manifest.json", manifest),
        ("./manifest.json", copied),
        ("oci-layout", layout),
        ("repositories", repositories),
    ] {
        for parts in [[file(name, content), blob()], [blob(), file(name, content)]] {
            let tar = archive(&parts);
            given.refused(&tar, 7, "is a saved image, as its '/");
            given.refused(&gzip(&tar), 7, "podman export");
        }
    }
    let tar = archive(&[file("oci-layout", layout), blob()]);
    for way in [
        &["import", "given.tar", "--format", "tar"][..],
        &["commit", "--layer", "-", "--base", "base", "--any-layer"],
    ] {
        let output = given.run(way, &tar);
        assert!(output.status.success(), "{way:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    // An OCI image layout is a directory as often.
    for (name, content) in [
        ("manifest.json", manifest),
        ("manifest.json", copied),
        ("oci-layout", layout),
        ("repositories", repositories),
    ] {
        let saved = given.cli.path("saved");
        std::fs::create_dir(&saved).unwrap();
        std::fs::write(saved.join(name), content).unwrap();
        let (code, message) = given.cli.fails(&["import", "saved", "--tag", "y"]);
        assert!(code == 7 && message.contains("is a saved image"), "{code}: {message}");
        assert_eq!(given.cli.fails(&["inspect", "y"]).0, 3);
        given.cli.ok(&["import", "saved", "--format", "dir"]);
        std::fs::remove_dir_all(&saved).unwrap();
    }
}

#[test]
fn files_that_only_have_the_names_of_a_saved_image_are_taken() {
    let given = Given::new();
    for (name, content) in [
        ("manifest.json", r#"{"name":"a web app","icons":[]}"#),
        ("manifest.json", "[]"),
        ("manifest.json", r#"[{"name":"x"}]"#),
        ("manifest.json", "not JSON"),
        ("srv/web/manifest.json", r#"[{"Config":"c","Layers":["l"]}]"#),
        ("usr/lib/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#),
        ("oci-layout", "{}"),
        ("repositories", "{}"),
        ("repositories", r#"{"main":{"url":"https://example.org"}}"#),
    ] {
        given.taken(&archive(&[file(name, content)]));
    }
    let saved = given.cli.path("saved");
    std::fs::create_dir_all(saved.join("oci-layout")).unwrap();
    std::fs::write(saved.join("manifest.json"), "{}").unwrap();
    given.cli.ok(&["import", "saved"]);
}

#[test]
fn an_error_of_a_tar_names_the_file() {
    let given = Given::new();
    for (tar, message) in [
        (&b"junk"[..], "is no tar archive"),
        (&archive(&[file("../x", "")]), "archive entry '../x': its name has"),
        (&archive(&[symlink("l", "x"), file("l/y", "")]), "archive entry '/l/y': goes through"),
        (&gzip(b"x")[..12], "its gzip stream is damaged or cut short"),
    ] {
        for way in WAYS {
            let output = given.run(way, tar);
            let name = if way.contains(&"-") { "standard input" } else { "given.tar" };
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(text.contains(&format!("{name}: {message}")), "{way:?}: {text}");
        }
    }
}
