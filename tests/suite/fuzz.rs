//! The fuzz targets' corpora through the targets themselves, so that every test run repeats what fuzzing has found.
//!
//! A file that showed a fault is kept as `fuzz/corpus/TARGET/fault-*`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

#[allow(unreachable_pub, reason = "the file is also the library of the fuzz targets")]
#[path = "../../fuzz/src/lib.rs"]
pub(crate) mod targets;

/// Bytes of the largest file and of all corpora together that are worth keeping.
const FILE_BYTES_MAX: u64 = 32 << 10;
const CORPORA_BYTES_MAX: u64 = 200 << 10;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(name: &str) {
    let (_, check) = targets::TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let files = files(&folder("corpus").join(name));
    let mut taken = 0;
    for file in &files {
        // Captured unless the file shows a fault, and then the last line names it.
        println!("{}", file.display());
        taken += usize::from(check(&fs::read(file).unwrap()));
    }
    let (all, refused) = (files.len(), files.len() - taken);
    assert!(taken > 2 && refused > 2, "a corpus reaches both ends: {taken} of {all} were taken");
}

macro_rules! replays {
    ($($target:ident)*) => {
        $(#[test] fn $target() { replay(stringify!($target)); })*

        #[test]
        fn every_target_is_replayed_and_has_a_corpus() {
            let replayed: BTreeSet<_> = [$(stringify!($target).to_owned()),*].into();
            let names = |folder: &Path| -> BTreeSet<_> {
                files(folder).iter().map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
            };
            assert_eq!(targets::TARGETS.map(|(name, _)| name.to_owned()), *replayed.iter().cloned().collect::<Vec<_>>());
            assert_eq!(names(&folder("fuzz_targets")), replayed);
            assert_eq!(names(&folder("corpus")), replayed);
        }
    };
}

replays! { dump frame losses node operations pax record reference segment state tar }

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_calls_come_to_what_the_model_says(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        targets::operations::check(&bytes);
    }

    /// Damage and repair stand between calls in any order and number.
    #[test]
    fn any_calls_between_mishaps_come_to_what_the_model_says(
        calls in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..24), any::<[u8; 2]>()), 1..10)
    ) {
        let project = [8, 1, 8, 2];
        let calls = calls.into_iter().flat_map(|(calls, [mishap, seed])| [calls, vec![0x3f, mishap, seed]].concat());
        targets::operations::check(&project.into_iter().chain(calls).collect::<Vec<_>>());
    }
}

#[test]
fn corpora_stay_small() {
    let sizes: Vec<_> = files(&folder("corpus"))
        .iter()
        .flat_map(|corpus| files(corpus))
        // What a run of the fuzzer found is there too, named by its hash, until someone chose what to keep.
        .filter(|file| file.file_name().is_none_or(|name| name.len() != 40))
        .map(|file| file.metadata().unwrap().len())
        .collect();
    assert!(sizes.iter().all(|size| *size <= FILE_BYTES_MAX), "{sizes:?}");
    assert!(sizes.iter().sum::<u64>() <= CORPORA_BYTES_MAX, "{} bytes", sizes.iter().sum::<u64>());
}
