//! Upper directories of every kind of overlay: read as what they are, and refused as anything else.

use std::fs;
use std::path::{Path, PathBuf};

use layerstone::{CommitOptions, ErrorKind, ImportOptions, OverlayMarks, Project, Store};

use crate::given::{Place, project, read};
use crate::overlay::{EVERYTHING, Given, check_is_committed_as_shown, shell};
use crate::system;

#[test]
fn fuse_overlayfs_is_committed_as_shown() {
    if !system::is_on() {
        return;
    }
    // Without the kernel's cache of writes, so that the view shows the times that files have.
    for options in [",writeback=0", ",writeback=0,xattr_permissions=2"] {
        let given = Given::mounted(&["fuse-overlayfs"], options, OverlayMarks::FuseOverlayfs);
        check_is_committed_as_shown(given, EVERYTHING);
    }
}

/// A base with `d/old` and `top`, and an upper directory that a script fills.
struct Hand {
    place: Place,
    project: Project,
    base: layerstone::ImageRef,
}

fn by_hand() -> Hand {
    let place = Place::new();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let source = place.directory("source", &[("d/old", b"old"), ("top", b"top"), (".wh.kept", b"")]);
    let base = project.import_directory(&source, &ImportOptions::default()).unwrap().image.into();
    Hand { place, project, base }
}

impl Hand {
    fn upper(&self, script: &str) -> PathBuf {
        let upper = self.place.path("upper");
        let _ = fs::remove_dir_all(&upper);
        fs::create_dir(&upper).unwrap();
        shell(&upper, script);
        upper
    }

    fn commit(&self, upper: &Path, marks: OverlayMarks) -> layerstone::Result<layerstone::WriteReport> {
        self.project.commit_upper(upper, &self.base, marks, &CommitOptions::default())
    }

    /// The paths of an upper directory's image.
    fn paths(&self, upper: &Path, marks: OverlayMarks) -> Vec<String> {
        let image = self.project.find(&self.commit(upper, marks).unwrap().image.into()).unwrap();
        let out = self.place.path("out");
        let _ = fs::remove_dir_all(&out);
        image.check_out(&out, layerstone::CheckoutOptions::default()).unwrap();
        let seen = crate::compare::snapshot(&out);
        seen.keys().filter_map(|path| path.to_str()).map(str::to_owned).collect()
    }
}

#[test]
fn marks_of_another_kind_are_refused() {
    use OverlayMarks::{FuseOverlayfs, Trusted, User};
    if !system::is_on() {
        return;
    }
    let hand = by_hand();
    let count = || hand.project.images(&layerstone::ListOptions::default()).unwrap().images.len();
    let images = count();
    for (script, path, refused) in [
        ("mkdir d; setfattr -n user.overlay.opaque -v y d", "/d", &[(Trusted, "OverlayMarks::User`")][..]),
        ("touch top; setfattr -n user.overlay.metacopy top", "/top", &[(Trusted, "OverlayMarks::User`")]),
        ("touch top; setfattr -n user.overlay.whiteout top", "/top", &[(Trusted, "OverlayMarks::User`")]),
        (
            "mkdir x; setfattr -n user.overlay.redirect -v /d x",
            "/x",
            &[
                (Trusted, "OverlayMarks::User`"),
                (FuseOverlayfs, "OverlayMarks::User`"),
                (User, "user.overlay.redirect"),
            ],
        ),
        ("mkdir x; setfattr -n user.overlay.origin -v o x", "/x", &[(Trusted, "OverlayMarks::User`")]),
        ("setfattr -n user.overlay.opaque -v y .", "/", &[(Trusted, "OverlayMarks::User`")]),
        ("setfattr -n trusted.overlay.opaque -v y .", "/", &[(User, "OverlayMarks::Trusted`")]),
        ("mkdir d; setfattr -n trusted.overlay.opaque -v y d", "/d", &[(User, "OverlayMarks::Trusted`")]),
        (
            "mkdir x; setfattr -n trusted.overlay.redirect -v /d x",
            "/x",
            &[(User, "OverlayMarks::Trusted`"), (FuseOverlayfs, "OverlayMarks::Trusted`")],
        ),
        (
            "mkdir d; setfattr -n user.fuseoverlayfs.opaque -v y d",
            "/d",
            &[(Trusted, "OverlayMarks::FuseOverlayfs`"), (User, "OverlayMarks::FuseOverlayfs`")],
        ),
        (
            "touch new; setfattr -n user.fuseoverlayfs.override_stat -v 1:2:100644 new",
            "/new",
            &[(Trusted, "OverlayMarks::FuseOverlayfs`"), (User, "OverlayMarks::FuseOverlayfs`")],
        ),
        (
            "mkdir d; touch d/.wh..wh..opq; mknod d/.wh..opq c 0 0",
            "/d/.wh..wh..opq",
            &[(Trusted, "OverlayMarks::FuseOverlayfs`"), (User, "OverlayMarks::FuseOverlayfs`")],
        ),
        (
            "touch .wh.top",
            "/.wh.top",
            &[(Trusted, "OverlayMarks::FuseOverlayfs`"), (User, "OverlayMarks::FuseOverlayfs`")],
        ),
        (
            "touch .wh.top; ln .wh.top .wh.d",
            "/.wh.",
            &[(Trusted, "OverlayMarks::FuseOverlayfs`"), (User, "OverlayMarks::FuseOverlayfs`")],
        ),
        ("touch .wh..", "/.wh..", &[(FuseOverlayfs, "whiteout")]),
    ] {
        let upper = hand.upper(script);
        for (marks, words) in refused {
            let error = hand.commit(&upper, *marks).expect_err(script);
            let text = error.to_string();
            assert!(text.contains(path) && text.contains(words), "{script} as {marks:?}: {text}");
            assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported), "{script}: {text}");
        }
    }
    assert_eq!(count(), images);
}

#[test]
fn marks_are_read_as_their_overlay_does() {
    use OverlayMarks::{FuseOverlayfs, OnlyTrusted, OnlyUser, Trusted, User};
    if !system::is_on() {
        return;
    }
    let hand = by_hand();
    for (marks, script, expected) in [
        (User, "mkdir d; setfattr -n user.overlay.opaque -v y d", &["", ".wh.kept", "d", "top"][..]),
        (Trusted, "echo x > .wh.x; mkdir .wh.d", &["", ".wh.d", ".wh.kept", ".wh.x", "d", "d/old", "top"]),
        (Trusted, "mknod .wh.kept c 0 0", &["", "d", "d/old", "top"]),
        (OnlyTrusted, "touch .wh.top", &["", ".wh.kept", ".wh.top", "d", "d/old", "top"]),
        (OnlyUser, "touch .wh.top", &["", ".wh.kept", ".wh.top", "d", "d/old", "top"]),
        (
            OnlyTrusted,
            "mkdir d; setfattr -n user.overlay.opaque -v y d",
            &["", ".wh.kept", "d", "d/old", "top"],
        ),
        (FuseOverlayfs, "touch .wh.top", &["", ".wh.kept", "d", "d/old"]),
        (FuseOverlayfs, "mkdir d; touch d/.wh.old d/.wh.never d/!", &["", ".wh.kept", "d", "d/!", "top"]),
        (FuseOverlayfs, "mkdir d; touch d/.wh..wh..opq d/! d/a", &["", ".wh.kept", "d", "d/!", "d/a", "top"]),
        (FuseOverlayfs, "mkdir .wh.d; touch .wh.d/x d", &["", ".wh.kept", "top"]),
        (FuseOverlayfs, "touch .wh.top; ln .wh.top .wh.d; ln .wh.top new", &["", ".wh.kept", "new"]),
        (FuseOverlayfs, "touch .wh..wh..opq new", &["", "new"]),
        (FuseOverlayfs, "touch new; setfattr -n user.fuseoverlayfs.opaque -v y .", &["", "new"]),
        (FuseOverlayfs, "mkdir d; setfattr -n user.overlay.opaque -v y d", &["", ".wh.kept", "d", "top"]),
    ] {
        let upper = hand.upper(script);
        assert_eq!(hand.paths(&upper, marks), expected, "{script} as {marks:?}");
    }
}

#[test]
fn owners_and_modes_that_fuse_overlayfs_could_not_set_are_taken() {
    if !system::is_on() {
        return;
    }
    let hand = by_hand();
    let upper = hand.upper(
        "setfattr -n user.fuseoverlayfs.override_stat -v 1:2:40750 .
         echo x > new; setfattr -n user.fuseoverlayfs.override_stat -v 33:44:104755 new
         echo y > mine; setfattr -n user.containers.override_stat -v 5:6:0600 mine; setfattr -n user.a -v b mine",
    );
    let made = hand.commit(&upper, OverlayMarks::FuseOverlayfs).unwrap();
    let image = hand.project.find(&made.image.into()).unwrap();
    assert_eq!(read(&image, "new").unwrap(), b"x\n");
    let out = hand.place.path("out");
    image.check_out(&out, layerstone::CheckoutOptions::default()).unwrap();
    let seen = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
    for path in seen.chain([out.clone()]) {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let metadata = fs::symlink_metadata(&path).unwrap();
        let expected = match path.strip_prefix(&out).unwrap().to_str().unwrap() {
            "" => (1, 2, 0o750),
            "new" => (33, 44, 0o4755),
            "mine" => (5, 6, 0o600),
            _ => continue,
        };
        let found = (metadata.uid(), metadata.gid(), metadata.permissions().mode() & 0o7777);
        assert_eq!(found, expected, "{path:?}");
    }
    for value in
        ["5:6:0600:block-7-7", "4294967295:0:0600", "0:4294967295:0600", "-1:0:0600", "4294967296:0:0600"]
    {
        let refused = hand.upper(&format!("touch x; setfattr -n user.containers.override_stat -v {value} x"));
        let error = hand.commit(&refused, OverlayMarks::FuseOverlayfs).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{value}: {error}");
    }
}
