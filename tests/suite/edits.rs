//! Any sequence of edits of a checkout: its commit is what an import of the directory would be.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use layerstone::{CheckoutOptions, CommitOptions, ImportOptions, Store};
use proptest::prelude::*;

use crate::compare::assert_equal;
use crate::given::{Place, project, set_mtime};

#[derive(Clone, Debug)]
enum Edit {
    Write(PathBuf, Vec<u8>),
    /// The same size, in place, with the time set back.
    WriteUnseen(PathBuf, u8),
    MakeDirectory(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
    HardLink(PathBuf, PathBuf),
    Symlink(PathBuf, PathBuf),
    SetMode(PathBuf, u32),
    SetTime(PathBuf, i64, i64),
    SetXattr(PathBuf, u8),
}

/// Paths that often meet; some go through what is no directory.
fn any_path() -> impl Strategy<Value = PathBuf> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "a!", "\u{1}"]), 1..4)
        .prop_map(|names| names.iter().collect())
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let sizes = prop_oneof![0..100_usize, Just(65_536), 65_000..70_000_usize, Just(300_000)];
    (sizes, any::<u64>()).prop_map(|(len, seed)| crate::roundtrip::noise(len, seed))
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let mode = prop::sample::select(vec![0o644, 0o600, 0o755, 0o4755, 0o1777]);
    prop_oneof![
        6 => (any_path(), any_bytes()).prop_map(|(path, bytes)| Edit::Write(path, bytes)),
        2 => (any_path(), any::<u8>()).prop_map(|(path, byte)| Edit::WriteUnseen(path, byte)),
        4 => any_path().prop_map(Edit::MakeDirectory),
        3 => any_path().prop_map(Edit::Remove),
        3 => (any_path(), any_path()).prop_map(|(from, to)| Edit::Rename(from, to)),
        4 => (any_path(), any_path()).prop_map(|(from, to)| Edit::HardLink(from, to)),
        2 => (any_path(), any_path()).prop_map(|(target, path)| Edit::Symlink(target, path)),
        2 => (any_path(), mode).prop_map(|(path, mode)| Edit::SetMode(path, mode)),
        1 => (any_path(), -10..10_i64, 0..3_i64).prop_map(|(path, s, ns)| Edit::SetTime(path, s, ns)),
        1 => (any_path(), 0..3_u8).prop_map(|(path, value)| Edit::SetXattr(path, value)),
    ]
}

/// Whether every directory on the way is one, so that nothing outside is touched through a link.
fn is_inside(root: &Path, path: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .all(|ancestor| fs::symlink_metadata(root.join(ancestor)).is_ok_and(|metadata| metadata.is_dir()))
}

/// Makes the edit if it can be made where the tree is as it is.
fn apply(root: &Path, edit: &Edit) {
    let (Edit::Write(path, _)
    | Edit::WriteUnseen(path, _)
    | Edit::MakeDirectory(path)
    | Edit::Remove(path)
    | Edit::Rename(_, path)
    | Edit::HardLink(_, path)
    | Edit::Symlink(_, path)
    | Edit::SetMode(path, _)
    | Edit::SetTime(path, ..)
    | Edit::SetXattr(path, _)) = edit;
    let at = root.join(path);
    let kind = fs::symlink_metadata(&at).ok().map(|metadata| metadata.file_type());
    let is_symlink = kind.is_some_and(|kind| kind.is_symlink());
    if !is_inside(root, path) {
        return;
    }
    // What the tree does not allow, such as a directory moved into itself, is no edit.
    let _: io::Result<()> = match edit {
        Edit::Write(_, bytes) if !is_symlink => fs::write(&at, bytes),
        Edit::WriteUnseen(_, byte) if kind.is_some_and(|kind| kind.is_file()) => write_unseen(&at, *byte),
        Edit::MakeDirectory(_) => fs::create_dir(&at),
        Edit::Remove(_) => fs::remove_file(&at).or_else(|_| fs::remove_dir_all(&at)),
        Edit::Rename(from, _) if is_inside(root, from) => fs::rename(root.join(from), &at),
        Edit::HardLink(from, _) if is_inside(root, from) => fs::hard_link(root.join(from), &at),
        Edit::Symlink(target, _) => symlink(target, &at),
        Edit::SetMode(_, mode) if !is_symlink => fs::set_permissions(&at, Permissions::from_mode(*mode)),
        Edit::SetTime(_, seconds, nanos) if kind.is_some() => {
            set_mtime(&at, *seconds, *nanos);
            Ok(())
        }
        Edit::SetXattr(_, value) if !is_symlink => {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&at, "user.value", &[*value], flags).map_err(io::Error::from)
        }
        _ => Ok(()),
    };
}

fn write_unseen(path: &Path, byte: u8) -> io::Result<()> {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let metadata = fs::metadata(path)?;
    let len = usize::try_from(metadata.len()).unwrap();
    fs::File::options().write(true).open(path)?.write_all_at(&vec![byte; len.min(1000)], 0)?;
    set_mtime(path, metadata.mtime(), metadata.mtime_nsec());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_commit_is_what_an_import_would_be(
        first in prop::collection::vec(any_edit(), 0..30),
        rounds in prop::collection::vec(prop::collection::vec(any_edit(), 0..12), 1..4),
    ) {
        let (place, store) = (Place::new(), Store::in_memory().unwrap());
        let (project, other) = (project(&store, "p"), project(&store, "other"));
        let source = place.directory("source", &[]);
        for edit in &first {
            apply(&source, edit);
        }
        let mut image = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
        let directory = place.path("checkout");
        let found = project.find(&image.into()).unwrap();
        found.check_out(&directory, CheckoutOptions::default()).unwrap();
        assert_equal(&source, &directory);
        for (number, edits) in rounds.iter().enumerate() {
            for edit in edits {
                apply(&directory, edit);
            }
            let report = project.commit(&directory, &CommitOptions::default()).unwrap();
            let committed = project.find(&report.image.into()).unwrap();
            let imported = other.import_directory(&directory, &ImportOptions::default()).unwrap();
            let imported = other.find(&imported.image.into()).unwrap();
            prop_assert_eq!(committed.info().root, imported.info().root, "round {}", number);
            prop_assert_eq!(report.is_new, report.image != image);
            image = report.image;
            let copy = place.path(&format!("copy-{number}"));
            committed.check_out(&copy, CheckoutOptions::default()).unwrap();
            assert_equal(&directory, &copy);
        }
    }
}
