//! The order in which a store's files reach the disk: from a record of every operation.

use std::path::Path;

use layerstone::testing::{DiskLog, DiskOperation};
use layerstone::{
    CheckoutOptions, CommitOptions, Durability, ExportOptions, ImportOptions, Project, Store, StoreOptions,
};

const CATALOG: &str = "catalog.redb";

/// A store that records, and a directory to import.
struct Recorded {
    log: DiskLog,
    store: Store,
    project: Project,
    folder: tempfile::TempDir,
}

impl Recorded {
    /// The store is held, so that each sync of the catalog belongs to a transaction and none to opening or closing it.
    fn new(options: StoreOptions) -> Self {
        let options = options.exclusive(true);
        let folder = tempfile::tempdir().unwrap();
        let log = DiskLog::default();
        let store = Store::open_recorded(folder.path().join("store"), options, &log).unwrap();
        let project = store.default_project().unwrap();
        std::fs::create_dir(folder.path().join("source")).unwrap();
        for file in 0..50_usize {
            std::fs::write(
                folder.path().join(format!("source/{file}")),
                format!("{file}").repeat(500 + file),
            )
            .unwrap();
        }
        let recorded = Self { log, store, project, folder };
        let _ = recorded.log.take();
        recorded
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn import(&self) -> Vec<DiskOperation> {
        self.project.import_directory(self.path("source"), &ImportOptions::default()).unwrap();
        self.store.wait_for_upkeep();
        self.log.take()
    }
}

fn is_pack(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "pack")
}

fn writes(operation: &DiskOperation, is_wanted: impl Fn(&str) -> bool) -> bool {
    matches!(operation, DiskOperation::Write { name, .. } if is_wanted(name))
}

fn syncs(operation: &DiskOperation, is_wanted: impl Fn(&str) -> bool) -> bool {
    matches!(operation, DiskOperation::Sync { name } if is_wanted(name))
}

/// Fails unless what was written to packs is durable before the catalog is next made durable. Wherever a record is
/// cut, a catalog that was synced names only frames that were synced.
fn check_packs_before_catalog(operations: &[DiskOperation]) {
    let mut unsynced = std::collections::BTreeSet::new();
    let mut has_frames = false;
    for operation in operations {
        match operation {
            // The first 24 bytes are a pack's head, which no row of the catalog counts on.
            DiskOperation::Write { name, offset, .. } if is_pack(name) && *offset > 0 => {
                has_frames = true;
                unsynced.insert(name.clone());
            }
            DiskOperation::Sync { name } if name == CATALOG => {
                assert!(unsynced.is_empty(), "the catalog was synced before {unsynced:?}");
            }
            DiskOperation::Sync { name } => {
                unsynced.remove(name);
            }
            _ => {}
        }
    }
    assert!(has_frames, "frames were written");
    assert!(unsynced.is_empty(), "{unsynced:?} was never synced");
}

fn position(operations: &[DiskOperation], is_wanted: impl Fn(&DiskOperation) -> bool) -> usize {
    operations.iter().position(is_wanted).unwrap_or_else(|| panic!("missing from {operations:#?}"))
}

/// Fails unless a new pack's name is durable before the last transaction, and gives where its file is made.
fn check_new_pack(operations: &[DiskOperation]) -> usize {
    check_packs_before_catalog(operations);
    let file = position(
        operations,
        |operation| matches!(operation, DiskOperation::Create { name } if is_pack(name)),
    );
    let folder =
        position(operations, |operation| *operation == DiskOperation::SyncDir { folder: "packs".into() });
    let publication =
        operations.iter().rposition(|operation| syncs(operation, |name| name == CATALOG)).unwrap();
    assert!(
        file < folder && folder < publication,
        "a new pack's name is durable before what is in it counts"
    );
    file
}

#[test]
fn a_large_session_has_a_pack_whose_row_comes_before_its_file() {
    let recorded = Recorded::new(StoreOptions::default().held_bytes(1000));
    let operations = recorded.import();
    let file = check_new_pack(&operations);
    assert!(position(&operations, |operation| syncs(operation, |name| name == CATALOG)) < file);
}

#[test]
fn packs_are_durable_before_the_catalog_names_them() {
    let recorded = Recorded::new(StoreOptions::default());
    check_new_pack(&recorded.import());

    let image = recorded
        .project
        .images(&layerstone::ListOptions { tagged_only: false, ..Default::default() })
        .unwrap();
    let image = recorded.project.find(&image.images[0].id.into()).unwrap();
    image.check_out(recorded.path("work"), CheckoutOptions::default()).unwrap();
    let operations = recorded.log.take();
    let state = |name: &str| name.starts_with("directories/");
    let written = position(&operations, |operation| writes(operation, state));
    let synced = position(&operations, |operation| syncs(operation, state));
    let publication =
        operations.iter().rposition(|operation| syncs(operation, |name| name == CATALOG)).unwrap();
    assert!(written < synced && synced < publication, "a checkout's state is durable before it counts");
}

fn count_syncs(operations: &[DiskOperation]) -> usize {
    let is_sync = |operation: &&DiskOperation| {
        matches!(operation, DiskOperation::Sync { .. } | DiskOperation::SyncDir { .. })
    };
    operations.iter().filter(is_sync).count()
}

/// One of the pack, and two for the phases of one transaction.
#[test]
fn a_commit_into_a_held_store_costs_three_syncs() {
    let recorded = Recorded::new(StoreOptions::default());
    let image =
        recorded.project.import_directory(recorded.path("source"), &ImportOptions::default()).unwrap();
    let image = recorded.project.find(&image.image.into()).unwrap();
    image.check_out(recorded.path("work"), CheckoutOptions::default()).unwrap();
    // So many rows that the dump is not outgrown by what follows.
    let tags: Vec<_> = (0..60).map(|number| format!("t:{number}").parse().unwrap()).collect();
    recorded.project.tag(&image.id().into(), &tags).unwrap();
    recorded.store.wait_for_upkeep();
    recorded.store.dump_catalog().unwrap();
    let _ = recorded.log.take();
    for turn in 0..20 {
        std::fs::write(recorded.path("work/new"), format!("{turn}")).unwrap();
        recorded.project.commit(recorded.path("work"), &CommitOptions::default()).unwrap();
        let operations = recorded.log.take();
        check_packs_before_catalog(&operations);
        assert_eq!(count_syncs(&operations), 3, "{operations:#?}");
    }
}

#[test]
fn a_sealed_pack_has_its_segment_before_the_catalog_names_it() {
    let recorded = Recorded::new(StoreOptions::default().row_objects(1).pack_bytes(1));
    let operations = recorded.import();
    check_packs_before_catalog(&operations);
    let temporary = |name: &str| name.ends_with(".segment.new");
    let written = position(&operations, |operation| writes(operation, temporary));
    let synced = position(&operations, |operation| syncs(operation, temporary));
    let renamed = position(
        &operations,
        |operation| matches!(operation, DiskOperation::Rename { from, .. } if temporary(from)),
    );
    let named =
        position(&operations, |operation| *operation == DiskOperation::SyncDir { folder: "segments".into() });
    let counted = operations.iter().rposition(|operation| syncs(operation, |name| name == CATALOG)).unwrap();
    assert!(written < synced && synced < renamed && renamed < named && named < counted);
    let packs_sync = position(&operations, |operation| syncs(operation, is_pack));
    assert!(packs_sync < named, "a segment names only frames that are durable");
}

#[test]
fn the_same_import_again_writes_no_frame() {
    let recorded = Recorded::new(StoreOptions::default());
    recorded.import();
    let operations = recorded.import();
    assert!(!operations.iter().any(|operation| writes(operation, is_pack)), "{operations:#?}");
}

#[test]
fn a_held_store_commits_with_one_sync_of_the_pack() {
    let recorded = Recorded::new(StoreOptions::default());
    recorded.import();
    std::fs::write(recorded.path("source/more"), "more").unwrap();
    let operations = recorded.import();
    assert_eq!(operations.iter().filter(|operation| syncs(operation, is_pack)).count(), 1);
    let catalog_syncs =
        operations.iter().filter(|operation| syncs(operation, |name| name == CATALOG)).count();
    assert_eq!(catalog_syncs, 2, "one transaction, in two phases");
}

#[test]
fn a_store_that_promises_nothing_of_power_cuts_syncs_nothing() {
    let recorded =
        Recorded::new(StoreOptions::default().durability(Durability::Unsynced).row_objects(1).pack_bytes(1));
    let operations = recorded.import();
    assert!(operations.iter().any(|operation| writes(operation, is_pack)));
    assert_eq!(count_syncs(&operations), 0, "{operations:#?}");
    assert!(recorded.store.verify().unwrap().is_sound());
}

#[test]
fn the_dump_is_written_when_it_is_outgrown_or_old_and_durable_before_it_has_its_name() {
    let recorded = Recorded::new(StoreOptions::default());
    let dump = recorded.path("store/catalog.dump");
    let is_dump = |name: &str| name.starts_with("catalog.dump");
    for turn in 0..4 {
        if turn == 2 {
            // As if it had been written in 1970.
            let mut bytes = std::fs::read(&dump).unwrap();
            bytes[8..16].fill(0);
            std::fs::write(&dump, &bytes).unwrap();
        }
        std::fs::write(recorded.path("source/more"), format!("{turn}")).unwrap();
        let operations = recorded.import();
        check_packs_before_catalog(&operations);
        let dumped: Vec<_> = operations
            .iter()
            .skip_while(|operation| !writes(operation, is_dump))
            .filter(|operation| !writes(operation, is_dump))
            .collect();
        // The first image is more than a new store has; the second isn't, and the dump is new.
        if turn % 2 == 1 {
            assert!(dumped.is_empty(), "{turn}: it is new: {dumped:?}");
            continue;
        }
        let new = || "catalog.dump.new".to_owned();
        let expected = [
            DiskOperation::Sync { name: new() },
            DiskOperation::Rename { from: new(), to: "catalog.dump".into() },
            DiskOperation::SyncDir { folder: String::new() },
        ];
        assert_eq!(dumped, expected.iter().collect::<Vec<_>>(), "{turn}");
        let publication = position(&operations, |operation| syncs(operation, |name| name == CATALOG));
        assert!(publication < position(&operations, |operation| writes(operation, is_dump)));
    }
    assert!(recorded.store.verify().unwrap().is_sound());
}

/// A store that each use opens anew, as programs do, and a directory of one small file.
struct Shared {
    log: DiskLog,
    folder: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let shared = Self { log: DiskLog::default(), folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(shared.folder.path().join("source")).unwrap();
        shared.project();
        let _ = shared.log.take();
        shared
    }

    fn project(&self) -> Project {
        let store = self.folder.path().join("store");
        Store::open_recorded(store, StoreOptions::default(), &self.log).unwrap().default_project().unwrap()
    }

    /// Imports a file with these bytes and gives the number of syncs.
    fn import(&self, text: &str) -> usize {
        let source = self.folder.path().join("source");
        std::fs::write(source.join("motd"), text).unwrap();
        let options = ImportOptions { tags: vec!["os:1".parse().unwrap()], ..ImportOptions::default() };
        self.project().import_directory(&source, &options).unwrap();
        let operations = self.log.take();
        check_packs_before_catalog(&operations);
        count_syncs(&operations)
    }
}

#[test]
fn reading_a_shared_store_writes_nothing() {
    let shared = Shared::new();
    shared.import("hello");
    let project = shared.project();
    let image = project.find(&"os:1".parse().unwrap()).unwrap();
    assert_eq!(crate::given::read(&image, "motd").unwrap(), b"hello");
    image.export(&mut Vec::new(), &ExportOptions::default()).unwrap();
    assert_eq!(project.images(&layerstone::ListOptions::default()).unwrap().images.len(), 1);
    assert_eq!(shared.log.take(), []);
}

/// One sync of what a killed process may have left, one of the pack, and two for the phases of one transaction.
#[test]
fn an_import_into_a_shared_store_costs_four_syncs() {
    let shared = Shared::new();
    assert_eq!(shared.import("hello"), 8, "a new pack's name too, and three for the dump, which is outgrown");
    assert_eq!(shared.import("bye"), 4);
}
