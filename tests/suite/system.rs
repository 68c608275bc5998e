//! Real input and real programs: a Debian root file system, GNU tar, rsync. Needs root, and what `.ci/run` installs;
//! runs where `LAYERSTONE_SYSTEM_TESTS=1` is set.

use std::path::{Path, PathBuf};
use std::process::Command;

use layerstone::{CheckoutOptions, CommitOptions, ExportOptions, ImportOptions, Store};

pub(crate) fn is_on() -> bool {
    let on = std::env::var_os("LAYERSTONE_SYSTEM_TESTS").is_some_and(|value| value == "1");
    if !on {
        eprintln!("not run: set LAYERSTONE_SYSTEM_TESTS=1, as root");
    }
    on
}

/// Runs a program that must succeed.
pub(crate) fn program(program: &str, words: &[&Path]) {
    let status = Command::new(program).args(words).status().unwrap();
    assert!(status.success(), "{program} {words:?}");
}

pub(crate) fn bind(from: &Path, to: &Path) {
    program("mount", &[Path::new("--bind"), from, to]);
}

pub(crate) fn unmount(target: &Path) {
    program("umount", &[target]);
}

fn run(program: &str, words: &[&std::ffi::OsStr]) -> String {
    let output =
        Command::new(program).args(words).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

macro_rules! run {
    ($program:literal $(, $word:expr)*) => { run($program, &[$($word.as_ref()),*]) };
}

/// A Debian root file system, made once for this build folder.
pub(crate) fn debian() -> PathBuf {
    let corpora = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpora");
    // Tests run at once, in processes of their own; one of them makes it.
    let lock = std::fs::File::create(corpora.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    if !corpora.join("debian").is_dir() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/corpora/corpora");
        run!("bash", script, corpora, "debian");
    }
    corpora.join("debian")
}

/// Fails unless rsync, looking at everything, finds two trees equal.
fn assert_equal(a: &Path, b: &Path) {
    let slash = |path: &Path| format!("{}/", path.display());
    let words = ["-aHAXnc", "--modify-window=-1", "--delete", "--itemize-changes"];
    let differences = run!("rsync", words[0], words[1], words[2], words[3], slash(a), slash(b));
    assert_eq!(differences, "");
}

#[test]
fn a_debian_system_in_and_out() {
    if !is_on() {
        return;
    }
    let debian = debian();
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let store = Store::open(at("store")).unwrap();
    let project = store.default_project().unwrap();
    let image = |id: layerstone::id::ImageId| project.find(&id.into()).unwrap();
    let everything = CheckoutOptions { devices: true, all_xattrs: true, ..CheckoutOptions::default() };

    // A device, a capability, a sparse file, a name that is not UTF-8, beside what Debian has.
    let source = at("source");
    run!("cp", "-a", debian, source);
    run!("mknod", source.join("dev/odd"), "b", "7", "200");
    run!("setfattr", "-n", "user.note", "-v", "hello", source.join("etc/hostname"));
    run!("setcap", "cap_net_raw+ep", source.join("usr/bin/env"));
    run!("setfacl", "-m", "u:12345:r,g:54321:rw", source.join("etc/shadow"));
    run!("setfacl", "-d", "-m", "u:12345:rx", source.join("srv"));
    run!("truncate", "-s", "1G", source.join("var/sparse"));
    run!("ln", source.join("etc/passwd"), source.join("var/passwd-too"));
    run!("mkfifo", source.join("run/fifo"));
    std::fs::write(source.join(std::ffi::OsString::from("not-\u{fffd}-utf8")), "x").unwrap();
    let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"latin-\xe9\n");
    std::fs::write(source.join(odd), "y").unwrap();

    let from_directory = project.import_directory(&source, &ImportOptions::default()).unwrap();
    let tar = at("debian.tar");
    run!(
        "tar",
        "--xattrs",
        "--xattrs-include=*",
        "--format=posix",
        "--sparse",
        "-C",
        source,
        "-cf",
        tar,
        "."
    );
    let from_tar = project.import_tar(std::fs::File::open(&tar).unwrap(), &ImportOptions::default()).unwrap();
    assert_eq!(image(from_directory.image).info().root, image(from_tar.image).info().root);
    let with_acls = at("with-acls.tar");
    run!(
        "tar",
        "--acls",
        "--xattrs",
        "--xattrs-include=user.*",
        "--xattrs-include=security.*",
        "--format=posix",
        "--sparse",
        "-C",
        source,
        "-cf",
        with_acls,
        "."
    );
    let from_acls =
        project.import_tar(std::fs::File::open(&with_acls).unwrap(), &ImportOptions::default()).unwrap();
    assert_eq!(image(from_directory.image).info().root, image(from_acls.image).info().root);
    for program in ["gzip", "zstd"] {
        let packed =
            Command::new(program).args(["-1", "-c"]).arg(&tar).stdout(std::process::Stdio::piped()).spawn();
        let again = project.import_tar(packed.unwrap().stdout.unwrap(), &ImportOptions::default()).unwrap();
        assert_eq!((again.image, again.stored_bytes), (from_tar.image, 0), "{program} does not count");
    }

    let checkout = at("checkout");
    let report = image(from_directory.image).check_out(&checkout, everything).unwrap();
    assert_eq!((report.owners_unset, report.modes_unset, report.xattrs_unset, report.omitted), (0, 0, 0, 0));
    assert_equal(&source, &checkout);
    let blocks = |root: &Path| {
        std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(root.join("var/sparse")).unwrap())
    };
    assert!(blocks(&checkout) <= 16, "holes stay holes");

    let exported = at("exported.tar");
    let sockets = image(from_directory.image)
        .export(std::fs::File::create(&exported).unwrap(), &ExportOptions::default())
        .unwrap();
    assert_eq!(sockets, []);
    for with_acls in ["--no-acls", "--acls"] {
        let unpacked = at(with_acls);
        std::fs::create_dir(&unpacked).unwrap();
        run!(
            "tar",
            "--xattrs",
            "--xattrs-include=*",
            with_acls,
            "--numeric-owner",
            "-xpf",
            exported,
            "-C",
            unpacked
        );
        assert_equal(&source, &unpacked);
    }
}

#[test]
fn a_commit_reads_and_stores_only_what_changed() {
    if !is_on() {
        return;
    }
    let debian = debian();
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let store = Store::open(at("store")).unwrap();
    let project = store.default_project().unwrap();
    let base = project.import_directory(&debian, &ImportOptions::default()).unwrap();
    let checkout = at("checkout");
    // Without device nodes: what was left out is no change.
    project.find(&base.image.into()).unwrap().check_out(&checkout, CheckoutOptions::default()).unwrap();
    // The rename that put the directory in place was a change of it, and must not be too young to be trusted.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let unchanged = project.commit(&checkout, &CommitOptions::default()).unwrap();
    assert_eq!((unchanged.image, unchanged.stored_bytes), (base.image, 0));

    let listed = run!("find", checkout, "-type", "f", "-size", "+1k", "-size", "-100k");
    let files: Vec<_> = listed.lines().step_by(listed.lines().count() / 25).take(25).collect();
    let mut changed_bytes = 0;
    for file in &files {
        let mut bytes = std::fs::read(file).unwrap();
        bytes.extend_from_slice(b"changed\n");
        std::fs::write(file, &bytes).unwrap();
        changed_bytes += bytes.len() as u64;
    }
    let report = project.commit(&checkout, &CommitOptions::default()).unwrap();
    assert_eq!(report.examined, 25, "only the changed files were read");
    let tree_bytes = report.stored_bytes.saturating_sub(changed_bytes);
    assert!(tree_bytes < 100_000, "{tree_bytes} bytes besides the files");
    let again = at("again");
    project.find(&report.image.into()).unwrap().check_out(&again, CheckoutOptions::default()).unwrap();
    assert_equal(&checkout, &again);
}

#[test]
fn a_mount_point_is_no_place_for_a_checkout() {
    if !is_on() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir(at("source")).unwrap();
    std::fs::create_dir(at("mounted")).unwrap();
    let project = Store::open(at("store")).unwrap().default_project().unwrap();
    let image = project.import_directory(at("source"), &ImportOptions::default()).unwrap().image;
    let image = project.find(&image.into()).unwrap();
    // The same file system: its number does not tell.
    run!("mount", "--bind", at("source"), at("mounted"));
    let checked_out = image.check_out(at("mounted"), CheckoutOptions::default());
    run!("umount", at("mounted"));
    let error = checked_out.unwrap_err();
    assert_eq!(error.kind(), layerstone::ErrorKind::Invalid);
    assert!(error.to_string().contains("mount point"), "{error}");
    image.check_out(at("mounted"), CheckoutOptions::default()).unwrap();
}
