//! Directories on file systems that show files otherwise than they are: link counts of bindfs, second names of ACLs on XFS.

use std::fs;
use std::path::{Path, PathBuf};

use layerstone::{CheckoutOptions, CommitOptions, ExportOptions, ImportOptions, Store};

use crate::given::{Place, project};
use crate::overlay::shell;
use crate::reflink::Mounted;
use crate::system;

/// A directory that shows another, for as long as this lives.
struct Bound(PathBuf);

impl Bound {
    fn new(place: &Place) -> Self {
        let at = place.directory("bound", &[]);
        place.directory("real", &[]);
        shell(at.parent().unwrap(), "bindfs real bound");
        Self(at)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        shell(self.0.parent().unwrap(), "umount bound");
    }
}

/// bindfs gives the first name of a file that was just linked a count of 1, and the second the right one.
#[test]
fn no_name_of_a_file_is_lost_where_a_count_of_them_is_old() {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let bound = Bound::new(&place);
    let source = place.directory("source", &[("a", b"data"), ("z", b"z")]);
    fs::hard_link(source.join("a"), source.join("b")).unwrap();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let image = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let work = bound.0.join("work");
    project.find(&image.into()).unwrap().check_out(&work, CheckoutOptions::default()).unwrap();
    let made = project.commit(&work, &CommitOptions::default()).unwrap().image;
    let out = place.path("out");
    project.find(&made.into()).unwrap().check_out(&out, CheckoutOptions::default()).unwrap();
    for name in ["a", "b"] {
        assert_eq!(fs::read(out.join(name)).unwrap(), b"data", "{name}");
    }
}

fn lists_copies(bytes: &[u8]) -> bool {
    bytes.windows(8).any(|window| window == b"SGI_ACL_")
}

/// XFS shows root an ACL as `trusted.SGI_ACL_FILE` too. In an image it would bring back an ACL that was taken away.
#[test]
fn an_acl_has_one_name_where_xfs_shows_two() {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let Some(mounted) = Mounted::new(&place, &["mkfs.xfs", "-q"]) else { return };
    let source = mounted.path("source");
    fs::create_dir(&source).unwrap();
    shell(&source, "echo text >f; mkdir d; setfacl -m u:65534:rw f; setfacl -d -m u:65534:rwx d");
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let image = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let mut tar = Vec::new();
    project.find(&image.into()).unwrap().export(&mut tar, &ExportOptions::default()).unwrap();
    assert!(!lists_copies(&tar) && tar.windows(16).any(|window| window == b"posix_acl_access"));
    // GNU tar takes what the file system lists.
    shell(mounted.path("").as_ref() as &Path, "tar --xattrs --xattrs-include='*' -cf with.tar -C source .");
    let with = fs::read(mounted.path("with.tar")).unwrap();
    assert!(lists_copies(&with), "GNU tar sees them");
    let image = project.import_tar(&with[..], &ImportOptions::default()).unwrap().image;
    let mut tar = Vec::new();
    project.find(&image.into()).unwrap().export(&mut tar, &ExportOptions::default()).unwrap();
    assert!(!lists_copies(&tar));
}
