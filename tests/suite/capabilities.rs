//! Capabilities of files: one that counts for root has two forms, of which an image has one.

use std::fs;
use std::process::Command;

use layerstone::{CheckoutOptions, CommitOptions, ImportOptions, OverlayMarks, Store};

use crate::given::{Place, project};
use crate::raw_tar::{Header, archive, pax};
use crate::system;

/// `cap_net_raw=ep` in version 2, or in version 3 for the root user 0 or another.
fn capability(root: Option<u32>) -> Vec<u8> {
    let sets = [0x2000_u32, 0, 0, 0].map(u32::to_le_bytes).concat();
    let (version, root) = match root {
        None => (2, vec![]),
        Some(root) => (3, root.to_le_bytes().to_vec()),
    };
    [vec![1, 0, 0, version], sets, root].concat()
}

fn tar(root: Option<u32>) -> Vec<u8> {
    let root_directory = Header::new(b'5', "./").octal(100, 8, 0o755).bytes();
    let records = pax(&[("SCHILY.xattr.security.capability", &capability(root))]);
    archive(&[root_directory, records, Header::new(b'0', "./ping").octal(100, 8, 0o755).with("ping")])
}

#[test]
fn a_capability_for_root_is_one_whatever_its_form() {
    let place = Place::new();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let root = |id: layerstone::id::ImageId| project.find(&id.into()).unwrap().info().root;
    let import = |tar: &[u8]| project.import_tar(tar, &ImportOptions::default()).unwrap().image;
    let second = import(&tar(None));
    assert_eq!(root(import(&tar(Some(0)))), root(second));
    let foreign = import(&tar(Some(100_000)));
    assert_ne!(root(foreign), root(second));

    let image = project.find(&foreign.into()).unwrap();
    let edit = image.edit().set_xattr("/ping", "security.capability", capability(Some(0)));
    assert_eq!(root(edit.commit(&CommitOptions::default()).unwrap().image), root(second));
    let layer = tar(Some(0));
    let edit = image.edit().apply_tar(&layer[..]);
    assert_eq!(root(edit.commit(&CommitOptions::default()).unwrap().image), root(second));
}

#[test]
fn a_capability_comes_back_from_a_checkout_without_a_change() {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    for root in [None, Some(0), Some(100_000)] {
        let tar = tar(root);
        let image = project.import_tar(&tar[..], &ImportOptions::default()).unwrap().image;
        let image = project.find(&image.into()).unwrap();
        let name = format!("checkout-{root:?}");
        let report = image.check_out(place.path(&name), CheckoutOptions::default()).unwrap();
        assert_eq!(report.xattrs_unset, 0);
        let copy = place.path(&format!("{name}-copy"));
        let status = Command::new("cp").arg("-a").args([&place.path(&name), &copy]).status().unwrap();
        assert!(status.success());
        let options = CommitOptions { base: Some(image.id().into()), ..CommitOptions::default() };
        // Nothing is known of the copy, so all of it is read.
        let read = project.commit(&copy, &options).unwrap();
        assert_eq!((read.image, read.is_new), (image.id(), false), "{root:?}");
        let base = image.id().into();
        let upper = project.commit_upper(&copy, &base, OverlayMarks::Trusted, &CommitOptions::default());
        assert_eq!(upper.unwrap().image, image.id(), "{root:?}");
        fs::remove_dir_all(copy).unwrap();
    }
}

/// An access ACL that says what the mode says: the kernel takes it and keeps none.
#[test]
fn an_acl_that_the_kernel_drops_is_no_change() {
    if !system::is_on() {
        return;
    }
    let place = Place::new();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions) in [(1_u16, 7_u16), (4, 5), (32, 5)] {
        acl.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        acl.extend(u32::MAX.to_le_bytes());
    }
    let records = || pax(&[("SCHILY.xattr.system.posix_acl_access", &acl)]);
    let parts = [
        Header::new(b'5', "./").octal(100, 8, 0o755).bytes(),
        records(),
        Header::new(b'5', "./d").octal(100, 8, 0o755).bytes(),
        records(),
        Header::new(b'0', "./f").octal(100, 8, 0o755).with("f"),
    ];
    let image = project.import_tar(&archive(&parts)[..], &ImportOptions::default()).unwrap().image;
    let image = project.find(&image.into()).unwrap();
    let directory = place.path("checkout");
    let report = image.check_out(&directory, CheckoutOptions::default()).unwrap();
    assert_eq!(report.xattrs_unset, 2);
    // Both are read again.
    for name in ["d", "f"] {
        let status = Command::new("chmod").arg("755").arg(directory.join(name)).status().unwrap();
        assert!(status.success());
    }
    let made = project.commit(&directory, &CommitOptions::default()).unwrap();
    assert_eq!((made.image, made.is_new), (image.id(), false));
}
