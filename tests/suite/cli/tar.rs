//! Tars from the command line: where they come from and go to.

use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Stdio;

use super::Cli;

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
