//! Commits go on costing the same, however many there are: counted, in chains and in branches of one image.

use std::io::Read;

use layerstone::id::ImageId;
use layerstone::testing::{DiskLog, DiskOperation};
use layerstone::{
    CommitOptions, Durability, ImageRef, ImportOptions, Project, Store, StoreOptions, TreePath,
};

use crate::given::Place;
use crate::roundtrip::noise;

const COMMITS: usize = 2_000;

fn options() -> StoreOptions {
    // What is synced is counted elsewhere, and nobody reopens this after a power cut.
    StoreOptions::default().exclusive(true).durability(Durability::Unsynced)
}

fn open(place: &Place, log: &DiskLog) -> Project {
    Store::open_recorded(place.path("store"), options(), log).unwrap().default_project().unwrap()
}

/// What a commit wrote: to packs and segments, and to the catalog.
#[derive(Clone, Copy, Default)]
struct Written {
    packs: u64,
    catalog: u64,
}

fn written(log: &DiskLog) -> Written {
    let mut written = Written::default();
    for operation in log.take() {
        if let DiskOperation::Write { name, bytes, .. } = operation {
            if name.starts_with("packs/") {
                written.packs += bytes;
            } else if name.contains("catalog") {
                written.catalog += bytes;
            }
        }
    }
    written
}

fn median(written: &[Written], of: fn(&Written) -> u64) -> u64 {
    let mut values: Vec<_> = written.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// The bytes that are read of packs for one small file, in a store opened anew.
fn read_for_a_file(place: &Place, log: &DiskLog, image: ImageId) -> (usize, u64) {
    let project = open(place, log);
    let image = project.find(&ImageRef::Id(image)).unwrap();
    let _ = log.take_reads();
    let mut bytes = Vec::new();
    image.read_file(&TreePath::parse(b"/d7/file-7").unwrap()).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, noise(500, 7));
    let reads: Vec<_> = log.take_reads().into_iter().filter(|read| read.name.starts_with("packs/")).collect();
    (reads.len(), reads.iter().map(|read| read.bytes).sum())
}

/// Makes commits, each on the image that `parent` gives of those before it, and looks at what they cost.
fn commits_cost_the_same(parent: fn(&[ImageId]) -> ImageId) {
    let place = Place::new();
    let log = DiskLog::default();
    let project = open(&place, &log);
    let empty = place.directory("empty", &[]);
    let base = project.import_directory(&empty, &ImportOptions::default()).unwrap().image;
    let edit = project.find(&base.into()).unwrap().edit();
    let name = |number: usize| format!("/d{}/file-{number}", number % 20);
    let edit = (0..1_000).fold(edit, |edit, number| edit.write(name(number), noise(500, number as u64)));
    let mut images = vec![edit.commit(&CommitOptions::default()).unwrap().image];
    let mut costs = Vec::new();
    for turn in 0..COMMITS {
        let edit = project.find(&parent(&images).into()).unwrap().edit();
        let _ = log.take();
        let edit = edit.write(name(20 + turn % 900), noise(500, 10_000 + turn as u64));
        images.push(edit.commit(&CommitOptions::default()).unwrap().image);
        costs.push(written(&log));
    }
    let (first, last) = (&costs[..100], &costs[COMMITS - 100..]);
    for (what, of) in
        [("packs", (|cost| cost.packs) as fn(&Written) -> u64), ("the catalog", |cost| cost.catalog)]
    {
        let (first, last) = (median(first, of), median(last, of));
        assert!(
            last * 10 <= first * 13,
            "{first} bytes to {what} by one of the first, {last} by one of the last"
        );
    }
    drop(project);
    let (reads, bytes) = read_for_a_file(&place, &log, images[0]);
    let (deep_reads, deep_bytes) = read_for_a_file(&place, &log, *images.last().unwrap());
    assert!(deep_reads <= reads + 2, "{reads} reads through the first, {deep_reads} through the last");
    assert!(
        deep_bytes <= bytes * 11 / 10 + 8_000,
        "{bytes} bytes through the first, {deep_bytes} through the last"
    );
}

#[test]
fn in_a_chain() {
    commits_cost_the_same(|images| *images.last().unwrap());
}

#[test]
fn in_branches_of_one_image() {
    commits_cost_the_same(|images| images[0]);
}
