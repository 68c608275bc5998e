use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::source::{FilePiece, Found, SourceDirectory, SourceFile, SourceTree};
use super::stat::FileKind;
use crate::error::{ErrorKind, Result};
use crate::path::TreePath;

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// The file `name` as it is found now.
fn find<'t>(tree: &'t SourceTree, name: &str) -> (SourceDirectory<'t>, Found) {
    let directory = tree.directory(&TreePath::root()).unwrap().unwrap();
    let found = directory.find(name.as_bytes()).unwrap().unwrap();
    (directory, found)
}

/// The content in pieces of this size, if all of it was there.
fn read(file: &SourceFile, buf_bytes: usize) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let is_whole = file.read(&mut vec![0; buf_bytes], |piece| {
        match piece {
            FilePiece::Data(data) => bytes.extend_from_slice(data),
            FilePiece::Hole(len) => bytes.resize(bytes.len() + usize::try_from(len).unwrap(), 0),
        }
        Ok(())
    })?;
    Ok(is_whole.then_some(bytes))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_file_is_read_whole_whatever_the_buffer(
        runs in prop::collection::vec((any::<bool>(), 1..20_000_usize), 0..8),
        buf_bytes in 1..70_000_usize,
    ) {
        use std::os::unix::fs::FileExt;
        let folder = tempfile::tempdir().unwrap();
        let file = fs::File::create(folder.path().join("f")).unwrap();
        let mut expected = Vec::new();
        for (is_hole, len) in runs {
            if !is_hole {
                file.write_all_at(&vec![7; len], expected.len() as u64).unwrap();
            }
            expected.resize(expected.len() + len, if is_hole { 0 } else { 7 });
        }
        file.set_len(expected.len() as u64).unwrap();
        let tree = SourceTree::open(folder.path()).unwrap();
        let (directory, found) = find(&tree, "f");
        let file = directory.open_file(&found).unwrap();
        prop_assert_eq!(&read(&file, buf_bytes).unwrap().unwrap(), &expected);
        let mut room = vec![0; expected.len() + 1];
        prop_assert_eq!(file.read_whole(&mut room).unwrap(), Some(expected.as_slice()));
        prop_assert_eq!(file.read_whole(&mut room[1..]).unwrap(), None, "it needs a byte more than it has");
    }
}

#[test]
fn links_are_found_and_never_followed() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path(), folder.path().join("link")).unwrap();
    let tree = SourceTree::open(folder.path()).unwrap();
    let (directory, found) = find(&tree, "link");
    assert_eq!(found.stat.kind, FileKind::Symlink);
    assert_eq!(directory.read_link(b"link").unwrap(), outside.path().as_os_str().as_encoded_bytes());
    assert!(directory.open_file(&found).is_err());
    assert_eq!(tree.directory(&path("link")).unwrap_err().kind(), ErrorKind::Conflict);
    assert!(tree.directory(&path("gone")).unwrap().is_none());
}

#[test]
fn a_directory_lists_its_names_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b", "a!", "a", "c/d"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("a.txt"), "").unwrap();
    let tree = SourceTree::open(folder.path()).unwrap();
    let listed = tree.directory(&TreePath::root()).unwrap().unwrap().list().unwrap();
    let names: Vec<_> = listed.iter().map(|listed| str::from_utf8(&listed.name).unwrap()).collect();
    assert_eq!(names, ["a", "a!", "a.txt", "b", "c"]);
    assert!(
        listed.iter().all(|listed| listed.is_directory.is_none_or(|is| is == (&*listed.name != b"a.txt")))
    );
}

#[test]
fn a_file_is_not_taken_for_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("f");
    let set = |text: &str| fs::write(&name, text).unwrap();
    set("before");
    let tree = SourceTree::open(folder.path()).unwrap();
    let (directory, found) = find(&tree, "f");
    let file = directory.open_file(&found).unwrap();
    assert_eq!(read(&file, 10).unwrap().unwrap(), b"before");
    assert!(file.is_as_found().unwrap());

    set("longer than before");
    assert_eq!(file.read_whole(&mut [0; 100]).unwrap(), None, "there is more");
    assert!(!file.is_as_found().unwrap());
    set("cut");
    assert_eq!(file.read_whole(&mut [0; 100]).unwrap(), None);
    assert_eq!(read(&file, 10).unwrap(), None);
    let file = file.found_now().unwrap();
    assert_eq!(file.read_whole(&mut [0; 100]).unwrap().unwrap(), b"cut");

    fs::write(folder.path().join("g"), "another").unwrap();
    fs::rename(folder.path().join("g"), &name).unwrap();
    assert!(!directory.open_file(&found).unwrap().is_as_found().unwrap());
}
