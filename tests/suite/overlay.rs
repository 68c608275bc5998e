//! Commits of the upper directories of real overlay mounts, each compared with the merged view that the kernel showed.
//! Needs root, and what `.ci/run` installs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstone::id::ImageId;
use layerstone::{
    CheckoutOptions, CommitOptions, ErrorKind, ImportOptions, OverlayMarks, Project, Store, WriteReport,
};

use crate::compare::{Seen, snapshot};
use crate::given::{Place, project};
use crate::roundtrip::{noise, write_everything};
use crate::system;

/// A script with `set -e`, run in a directory.
pub(crate) fn shell(directory: &Path, script: &str) {
    let output =
        Command::new("sh").args(["-e", "-c", script]).current_dir(directory).output().expect("sh is there");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An image, a checkout of it as lower layer, and an overlay mount of it for as long as this lives.
pub(crate) struct Given {
    pub(crate) place: Place,
    pub(crate) project: Project,
    pub(crate) base: ImageId,
    marks: OverlayMarks,
    is_mounted: bool,
}

impl Given {
    /// An overlay of the kernel.
    fn new(options: &str) -> Self {
        let marks =
            if options.contains("userxattr") { OverlayMarks::User } else { OverlayMarks::OnlyTrusted };
        Self::mounted(&["mount", "-t", "overlay", "overlay"], options, marks)
    }

    /// An overlay that this program mounts.
    pub(crate) fn mounted(program: &[&str], options: &str, marks: OverlayMarks) -> Self {
        let place = Place::new();
        let project = project(&Store::open(place.path("store")).unwrap(), "p");
        let source = place.directory("source", &[]);
        write_everything(&source);
        for file in
            ["d/one", "d/two", "d/sub/three", "d/sub/deep/four", "e/five", "f/six", "g/seven", "h/eight"]
        {
            fs::create_dir_all(source.join(file).parent().unwrap()).unwrap();
            fs::write(source.join(file), format!("the file {file}")).unwrap();
        }
        fs::write(source.join("big"), noise(3_000_000, 5)).unwrap();
        fs::hard_link(source.join("d/one"), source.join("d/uno")).unwrap();
        fs::hard_link(source.join("f/six"), source.join("g/sechs")).unwrap();
        fs::hard_link(source.join("f/six"), source.join("g/sei")).unwrap();
        let base = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
        let image = project.find(&base.into()).unwrap();
        image.check_out(place.path("lower"), CheckoutOptions::default()).unwrap();
        for name in ["upper", "work", "merged"] {
            fs::create_dir(place.path(name)).unwrap();
        }
        // As the root directory of the image is, or the merged view's would be another.
        shell(&place.path("lower"), "chmod --reference=. ../upper && touch --reference=. ../upper");
        let at = |name: &str| place.path(name).display().to_string();
        let layers =
            format!("lowerdir={},upperdir={},workdir={}{options}", at("lower"), at("upper"), at("work"));
        let mut mount = Command::new(program[0]);
        mount.args(&program[1..]).args(["-o", &layers]).arg(place.path("merged"));
        let output = mount.output().unwrap_or_else(|error| panic!("{program:?}: {error}"));
        assert!(output.status.success(), "{layers}: {}", String::from_utf8_lossy(&output.stderr));
        Self { place, project, base, marks, is_mounted: true }
    }

    pub(crate) fn merged(&self) -> PathBuf {
        self.place.path("merged")
    }

    pub(crate) fn unmount(&mut self) {
        if std::mem::take(&mut self.is_mounted) {
            let status = Command::new("umount").arg(self.merged()).status().unwrap();
            assert!(status.success());
        }
    }

    fn commit(&self) -> WriteReport {
        let base = self.base.into();
        self.project
            .commit_upper(self.place.path("upper"), &base, self.marks, &CommitOptions::default())
            .unwrap()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// What differs, one line for each path.
pub(crate) fn differences(
    expected: &std::collections::BTreeMap<PathBuf, Seen>,
    found: &std::collections::BTreeMap<PathBuf, Seen>,
) -> Vec<String> {
    let paths: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
    let differs = |path: &&&PathBuf| expected.get(**path) != found.get(**path);
    let shown = |seen: Option<&Seen>| seen.map_or_else(|| "nothing".to_owned(), Seen::summary);
    paths
        .iter()
        .filter(differs)
        .map(|path| format!("{path:?}: {} but {}", shown(expected.get(*path)), shown(found.get(*path))))
        .collect()
}

/// Runs the script in the merged view, and compares what a commit of the upper directory holds with what it showed.
fn is_committed_as_shown(options: &str, script: &str) {
    if system::is_on() {
        check_is_committed_as_shown(Given::new(options), script);
    }
}

pub(crate) fn check_is_committed_as_shown(mut given: Given, script: &str) {
    shell(&given.merged(), script);
    let expected = snapshot(&given.merged());
    given.unmount();
    // So nothing of it can be opened.
    fs::remove_dir_all(given.place.path("lower")).unwrap();
    let made = given.commit();
    let image = given.project.find(&made.image.into()).unwrap();
    let everything = CheckoutOptions { devices: true, all_xattrs: true, ..CheckoutOptions::default() };
    image.check_out(given.place.path("out"), everything).unwrap();
    let found = snapshot(&given.place.path("out"));
    assert_eq!(differences(&expected, &found), Vec::<String>::new(), "{script}");
    assert_eq!(image.info().parent, Some(given.base));
}

/// What every overlay can.
pub(crate) const EVERYTHING: &str = "
    echo changed > plain; echo more >> big; chmod 600 d/two; touch -d 2001-02-03 e/five
    setfattr -n user.new -v value e/five; setfattr -n user.new -v value e
    rm bytes-65; rm -r many; rm -r h; mkdir h; echo new > h/new
    rm e/five; mkdir e/five; echo below > e/five/below
    rm -r a; echo file > a
    mkdir -p new/deep; echo new > new/deep/file; ln new/deep/file new/linked
    ln d/two d/zwei; ln -s nowhere new/link; mknod new/null c 1 3; mkfifo new/fifo
    mv f/six renamed; mv g moved; rm moved/seven; echo more > moved/more
    mv d dd; mv dd/sub ddd; echo x > ddd/x; rm ddd/three; mkdir d; echo y > d/y; mv ddd/deep d/deep
    chmod 700 empty; chmod 711 .
";

#[test]
fn of_the_kernel_s_defaults() {
    is_committed_as_shown("", EVERYTHING);
}

#[test]
fn with_redirected_directories() {
    is_committed_as_shown(",redirect_dir=on", EVERYTHING);
}

#[test]
fn with_metacopy() {
    is_committed_as_shown(",metacopy=on", EVERYTHING);
    is_committed_as_shown(",metacopy=on", "chown 5:6 big; mv big e/large; chmod 600 d/two; mv e ee");
}

#[test]
fn with_user_attributes() {
    is_committed_as_shown(",userxattr", EVERYTHING);
}

#[test]
fn with_an_index_of_hard_links() {
    is_committed_as_shown(",index=on,redirect_dir=on", &EVERYTHING.replace("mv f/six renamed;", ""));
    is_committed_as_shown(
        ",index=on",
        "echo one more >> d/uno; chmod 600 g/sei; ln f/six f/seis; rm g/sechs",
    );
}

#[test]
fn a_file_that_was_renamed_under_an_index_is_refused() {
    if !system::is_on() {
        return;
    }
    let mut given = Given::new(",index=on");
    // The merged view shows the new content at g/sei too, and nothing in the upper directory says so.
    shell(&given.merged(), "mv f/six renamed; echo more >> renamed; grep -q more g/sei");
    given.unmount();
    let (upper, base) = (given.place.path("upper"), given.base.into());
    let error =
        given.project.commit_upper(&upper, &base, given.marks, &CommitOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("/renamed"), "{error}");
}

#[test]
fn names_that_lead_to_several_groups_of_links_are_refused() {
    if !system::is_on() {
        return;
    }
    for script in ["echo more >> f/six; ln -f f/six d/uno", "echo more >> f/six; mv f/six e/five"] {
        let mut given = Given::new(",index=on");
        shell(&given.merged(), script);
        given.unmount();
        let (upper, base) = (given.place.path("upper"), given.base.into());
        let made = given.project.commit_upper(&upper, &base, given.marks, &CommitOptions::default());
        assert_eq!(made.unwrap_err().kind(), ErrorKind::Unsupported, "{script}");
    }
}

#[test]
fn with_directories_renamed_again_and_again() {
    let script = "
        mv d one; mv one two; mv two/sub two/bus; mv two/bus three; mkdir two/sub; echo x > two/sub/x
        mv three/deep two/sub/deep; mv e three/e; mv three four; rm four/e/five; mkdir -p d/sub; mv a/deep d/sub/a
    ";
    is_committed_as_shown(",redirect_dir=on", script);
}

#[test]
fn with_directories_renamed_away_and_back() {
    let script = "
        mv d/sub t; rm -r d; mkdir d; mv t d/sub
        mv e away; mv away e; mv f/six seis; mv f ff; mv ff f; mv g/seven f/seven; mv f g/f; mv g/f f
    ";
    is_committed_as_shown(",redirect_dir=on", script);
}

#[test]
fn what_anyone_can_set_marks_nothing() {
    let script = "
        setfattr -n user.overlay.redirect -v /plain e/five; setfattr -n user.overlay.metacopy e/five
        setfattr -n user.overlay.opaque -v y d; setfattr -n user.overlay.whiteout d/one
    ";
    is_committed_as_shown("", script);
}

#[test]
fn an_untouched_overlay_gives_the_image_back() {
    if !system::is_on() {
        return;
    }
    let mut given = Given::new("");
    shell(&given.merged(), "find . -type f -exec cat {} + > /dev/null");
    given.unmount();
    let made = given.commit();
    assert!(!made.is_new && made.image == given.base, "{made:?}");
    assert_eq!(made.examined, 1);
}

#[test]
fn an_upper_directory_of_another_image_is_refused() {
    if !system::is_on() {
        return;
    }
    let mut given = Given::new(",redirect_dir=on");
    shell(&given.merged(), "mv d moved");
    given.unmount();
    let other = given.place.directory("other", &[("x", b"x")]);
    let other = given.project.import_directory(&other, &ImportOptions::default()).unwrap().image;
    let upper = given.place.path("upper");
    let error = given
        .project
        .commit_upper(&upper, &other.into(), given.marks, &CommitOptions::default())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("/moved"), "{error}");
}

#[test]
fn flags_that_the_merged_view_had_are_counted() {
    if !system::is_on() {
        return;
    }
    for options in ["", ",userxattr"] {
        let mut given = Given::new(options);
        shell(&given.merged(), "chattr +i e/five g; chattr +a h/eight; chattr +ia d/two");
        given.unmount();
        let counted = given.commit().source.not_kept;
        let counted: Vec<_> =
            counted.iter().map(|kind| (&*kind.what, kind.paths, kind.example.to_string())).collect();
        let expected = [("append-only", 2, "/d/two".to_owned()), ("immutable", 3, "/d/two".to_owned())];
        assert_eq!(counted, expected, "{options}");
    }
}

#[test]
fn the_merged_view_is_no_upper_directory() {
    if !system::is_on() {
        return;
    }
    let given = Given::new("");
    shell(&given.merged(), "rm e/five");
    let error = given
        .project
        .commit_upper(given.merged(), &given.base.into(), OverlayMarks::Trusted, &CommitOptions::default())
        .unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().contains("name its upper"), "{error}");
}
