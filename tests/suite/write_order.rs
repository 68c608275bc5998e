//! What reaches the disk, in which order: what a publication names is durable before it.

use std::fs;

use layerstone::testing::{DiskLog, DiskOperation};
use layerstone::{CheckoutOptions, CommitOptions, ImportOptions, Project, Store, StoreOptions};

use crate::given::{Place, project};

const CATALOG: &str = "catalog.redb";

struct Recorded {
    place: Place,
    project: Project,
    log: DiskLog,
}

impl Recorded {
    fn new(options: StoreOptions) -> Self {
        let (place, log) = (Place::new(), DiskLog::default());
        let store = Store::open_recorded(place.path("store"), options, &log).unwrap();
        let project = project(&store, "p");
        place.directory("source", &[("one", &[1; 1000]), ("two", &vec![2; 200_000]), ("d/three", b"3")]);
        let _ = log.take();
        Self { place, project, log }
    }

    /// The operations of the import.
    fn import(&self) -> Vec<DiskOperation> {
        self.project.import_directory(self.place.path("source"), &ImportOptions::default()).unwrap();
        self.log.take()
    }

    /// The operations of a commit of a checkout with one change.
    fn commit(&self) -> Vec<DiskOperation> {
        let report =
            self.project.import_directory(self.place.path("source"), &ImportOptions::default()).unwrap();
        let directory = self.place.path("checkout");
        let image = self.project.find(&report.image.into()).unwrap();
        image.check_out(&directory, CheckoutOptions::default()).unwrap();
        fs::write(directory.join("four"), [4; 5000]).unwrap();
        let _ = self.log.take();
        assert!(self.project.commit(&directory, &CommitOptions::default()).unwrap().is_new);
        self.log.take()
    }
}

fn is_write_to(operation: &DiskOperation, prefix: &str) -> bool {
    matches!(operation, DiskOperation::Write { name, .. } if name.starts_with(prefix))
}

fn last_index(log: &[DiskOperation], test: impl Fn(&DiskOperation) -> bool) -> usize {
    log.iter().rposition(test).unwrap_or_else(|| panic!("no such operation in {log:#?}"))
}

fn next_index(log: &[DiskOperation], from: usize, test: impl Fn(&DiskOperation) -> bool) -> usize {
    let found = log.iter().skip(from + 1).position(test);
    found.unwrap_or_else(|| panic!("no such operation after {from} in {log:#?}")) + from + 1
}

/// After the last write to the store's only pack comes its sync, and only then the catalog.
fn assert_pack_is_durable_before_the_catalog(log: &[DiskOperation]) {
    let write = last_index(log, |operation| is_write_to(operation, "packs/"));
    let DiskOperation::Write { name, .. } = &log[write] else { unreachable!() };
    let sync = next_index(log, write, |operation| *operation == DiskOperation::Sync { name: name.clone() });
    let catalog = next_index(log, write, |operation| is_write_to(operation, CATALOG));
    assert!(sync < catalog, "the catalog is written before {name} is synced: {log:#?}");
    let last_write = last_index(log, |operation| is_write_to(operation, CATALOG));
    next_index(log, last_write, |operation| *operation == DiskOperation::Sync { name: CATALOG.into() });
}

#[test]
fn a_pack_is_durable_before_an_import_is_published() {
    for options in [StoreOptions::default(), StoreOptions::default().exclusive(true)] {
        assert_pack_is_durable_before_the_catalog(&Recorded::new(options).import());
    }
}

#[test]
fn a_pack_is_durable_before_a_commit_is_published() {
    for options in [StoreOptions::default(), StoreOptions::default().exclusive(true)] {
        assert_pack_is_durable_before_the_catalog(&Recorded::new(options).commit());
    }
}

#[test]
fn a_checkouts_state_is_durable_before_the_commit_that_counts_it() {
    let log = Recorded::new(StoreOptions::default()).commit();
    let write = last_index(&log, |operation| is_write_to(operation, "checkouts/"));
    let DiskOperation::Write { name, .. } = &log[write] else { unreachable!() };
    let sync = next_index(&log, write, |operation| *operation == DiskOperation::Sync { name: name.clone() });
    // The publishing transaction is the last: redb makes it count with its last sync.
    let published = last_index(&log, |operation| *operation == DiskOperation::Sync { name: CATALOG.into() });
    let last_write = last_index(&log, |operation| is_write_to(operation, CATALOG));
    assert!(sync < last_write && last_write < published, "{log:#?}");
}

#[test]
fn a_new_packs_name_is_durable_before_the_catalog_counts_on_it() {
    let log = Recorded::new(StoreOptions::default()).import();
    let create = last_index(
        &log,
        |operation| matches!(operation, DiskOperation::Create { name } if name.starts_with("packs/")),
    );
    let folder = DiskOperation::SyncDir { folder: "packs".into() };
    let sync = next_index(&log, create, |operation| *operation == folder);
    let catalog = next_index(&log, create, |operation| is_write_to(operation, CATALOG));
    assert!(sync < catalog, "{log:#?}");
}

#[test]
fn a_segment_is_durable_and_in_place_before_the_catalog_names_it() {
    let recorded = Recorded::new(StoreOptions::default().pack_objects(1));
    let log = recorded.import();
    assert_pack_is_durable_before_the_catalog(&log);
    let write = last_index(&log, |operation| is_write_to(operation, "segments/"));
    let DiskOperation::Write { name: temporary, .. } = &log[write] else { unreachable!() };
    let sync =
        next_index(&log, write, |operation| *operation == DiskOperation::Sync { name: temporary.clone() });
    let rename = next_index(
        &log,
        sync,
        |operation| matches!(operation, DiskOperation::Rename { from, .. } if from == temporary),
    );
    let folder = DiskOperation::SyncDir { folder: "segments".into() };
    let sync_folder = next_index(&log, rename, |operation| *operation == folder);
    let catalog = next_index(&log, write, |operation| is_write_to(operation, CATALOG));
    assert!(sync_folder < catalog, "{log:#?}");
    let pack = last_index(&log, |operation| is_write_to(operation, "packs/"));
    assert!(pack < write, "a segment is made of what is in the pack for good");
}

#[test]
fn an_unchanged_import_writes_no_objects() {
    for options in [StoreOptions::default(), StoreOptions::default().exclusive(true)] {
        let recorded = Recorded::new(options);
        let _ = recorded.import();
        let log = recorded.import();
        let to_packs: Vec<_> = log.iter().filter(|operation| is_write_to(operation, "packs/")).collect();
        assert!(to_packs.is_empty(), "{to_packs:?}");
    }
}
