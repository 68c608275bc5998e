use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use proptest::prelude::*;

use super::source::{FilePiece, Found, SourceTree};
use super::stat::FileKind;
use crate::error::{ErrorKind, Result};
use crate::path::TreePath;

fn walk(root: &Path) -> Result<Vec<Found>> {
    SourceTree::open(root)?.walk(None)?.collect()
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn read(root: &Path, name: &str, stat: &super::stat::Stat, buf_bytes: usize) -> Result<Vec<u8>> {
    let tree = SourceTree::open(root)?;
    let mut bytes = Vec::new();
    let file = tree.reader().open_file(&path(name), stat)?;
    file.read(&mut vec![0; buf_bytes], |piece| {
        match piece {
            FilePiece::Data(data) => bytes.extend_from_slice(data),
            FilePiece::Hole(len) => bytes.resize(bytes.len() + usize::try_from(len).unwrap(), 0),
        }
        Ok(())
    })?;
    Ok(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_walk_finds_everything_in_the_order_of_trees(
        paths in prop::collection::btree_set("[ab!\u{1}-]{1,2}(/[ab.-]{3}){0,2}", 0..20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut expected = std::collections::BTreeSet::from([TreePath::root()]);
        for name in paths {
            let directory = folder.path().join(&name);
            fs::create_dir_all(&directory).unwrap();
            let mut made = Some(path(&name));
            while let Some(path) = made {
                made = path.parent();
                expected.insert(path);
            }
        }
        let found: Vec<_> = walk(folder.path()).unwrap().into_iter().map(|found| found.path).collect();
        prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
    }

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
        let stat = walk(folder.path()).unwrap()[1].stat.clone();
        prop_assert_eq!(read(folder.path(), "f", &stat, buf_bytes).unwrap(), expected);
    }
}

#[test]
fn links_are_found_and_never_followed() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    symlink(outside.path(), folder.path().join("link")).unwrap();
    let found = walk(folder.path()).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].stat.kind, FileKind::Symlink);
    let tree = SourceTree::open(folder.path()).unwrap();
    assert!(tree.reader().open_file(&path("link/secret"), &found[1].stat).is_err());
    assert!(tree.reader().open_file(&path("link"), &found[1].stat).is_err());
}

#[test]
fn a_file_that_was_replaced_or_changed_since_is_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("f");
    fs::write(&name, "before").unwrap();
    let stat = walk(folder.path()).unwrap()[1].stat.clone();
    assert_eq!(read(folder.path(), "f", &stat, 10).unwrap(), b"before");
    fs::write(folder.path().join("g"), "another").unwrap();
    fs::rename(folder.path().join("g"), &name).unwrap();
    let error = read(folder.path(), "f", &stat, 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("/f: "), "{error}");

    let stat = walk(folder.path()).unwrap()[1].stat.clone();
    let tree = SourceTree::open(folder.path()).unwrap();
    let file = tree.reader().open_file(&path("f"), &stat).unwrap();
    let grown = file.read(&mut [0; 1], |_| {
        std::fs::OpenOptions::new()
            .append(true)
            .open(&name)
            .and_then(|mut file| std::io::Write::write_all(&mut file, b"more"))
            .unwrap();
        Ok(())
    });
    assert_eq!(grown.unwrap_err().kind(), ErrorKind::Conflict);
    let file = tree.reader().open_file(&path("f"), &walk(folder.path()).unwrap()[1].stat).unwrap();
    let cut = file.read(&mut [0; 1], |_| {
        fs::write(&name, "").unwrap();
        Ok(())
    });
    assert_eq!(cut.unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn a_refused_directory_stops_the_walk() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/store/packs")).unwrap();
    let tree = SourceTree::open(folder.path()).unwrap();
    let store = SourceTree::open(&folder.path().join("a/store")).unwrap().root_stat().unwrap();
    let found: Result<Vec<_>> = tree.walk(Some((store.device, store.inode))).unwrap().collect();
    assert_eq!(found.unwrap_err().kind(), ErrorKind::Invalid);
}
