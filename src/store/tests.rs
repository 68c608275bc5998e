use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::catalog::ReadTables;
use crate::catalog::record::{DirectoryUse, HolderRecord, LeaseRecord, OpenPackRecord};
use crate::catalog::table::Sequence;
use crate::catalog::table::{
    Identities, ImageTags, Images, Leases, OpenPacks, SealedPacks, Segments, Tags, key_bytes,
};
use crate::engine::image_id::{image_id, remember_image_id, time_and_counter};
use crate::engine::packs;
use crate::error::{Error, ErrorKind, Subject};
use crate::id::PackId;
use crate::layout::{pack_file, state_file};
use crate::object::{ObjectKind, ObjectSink, ObjectSource};

struct Given {
    folder: TempDir,
    store: Store,
    project: Project,
}

impl Given {
    fn new() -> Self {
        Self::with(StoreOptions::default())
    }

    /// A store whose sessions all have packs of their own.
    fn with_large_sessions() -> Self {
        Self::with(StoreOptions::default().held_bytes(0))
    }

    fn with(options: StoreOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = options.open(folder.path().join("store")).unwrap();
        let project = store.default_project().unwrap();
        Self { folder, store, project }
    }

    fn import(&self, content: &str) -> WriteReport {
        self.import_into(&self.project, content)
    }

    fn import_into(&self, project: &Project, content: &str) -> WriteReport {
        let source = self.folder.path().join("source");
        fs::create_dir_all(&source).unwrap();
        let file = source.join("content");
        // Written again it would have another time, and be another content.
        if fs::read(&file).ok().as_deref() != Some(content.as_bytes()) {
            fs::write(file, content).unwrap();
        }
        project.import_directory(&source, &ImportOptions::default()).unwrap()
    }

    fn leases(&self) -> Vec<(crate::id::LeaseId, LeaseRecord)> {
        self.store.0.read(|tx| tx.collect::<Leases>(&[])).unwrap()
    }

    fn packs(&self) -> Vec<(PackId, OpenPackRecord)> {
        self.store.0.read(|tx| tx.collect::<OpenPacks>(&[])).unwrap()
    }

    /// How many open packs, sealed packs and segments there are.
    fn counts(&self) -> [usize; 3] {
        let count = |tx: &ReadTx| {
            let open = tx.collect::<OpenPacks>(&[])?.len();
            Ok([open, tx.collect::<SealedPacks>(&[])?.len(), tx.collect::<Segments>(&[])?.len()])
        };
        self.store.0.read(count).unwrap()
    }

    fn pack_path(&self, pack: PackId) -> PathBuf {
        self.store.location().join(pack_file(pack))
    }

    /// Makes it look as if the process that holds the leases had ended.
    fn forge_death(&self) {
        let catalog = self.store.0.catalog().unwrap();
        catalog
            .write(|tx| {
                for (id, lease) in tx.collect::<Leases>(&[])? {
                    let ended = lease.holder.started_ticks + 1;
                    let holder = HolderRecord { started_ticks: ended, ..lease.holder };
                    tx.put::<Leases>(&id, &LeaseRecord { holder, ..lease })?;
                }
                Ok(())
            })
            .unwrap();
    }
}

/// Appends an object to the session's pack.
fn append(session: &WriteSession, bytes: &[u8]) {
    let mut writer = session.writer().unwrap();
    writer.put(ObjectKind::Chunk, bytes).unwrap();
    writer.flush().unwrap();
}

#[test]
fn a_finished_session_holds_nothing() {
    let given = Given::new();
    given.import("one");
    assert_eq!(given.leases(), []);
    let packs = given.packs();
    assert_eq!(packs.len(), 1);
    assert_eq!(packs[0].1.owner, None);
    assert_eq!(fs::metadata(given.pack_path(packs[0].0)).unwrap().len(), packs[0].1.committed_bytes);
    given.import("one");
    assert_eq!((given.packs(), given.leases()), (packs, vec![]), "an import of nothing new leaves no trace");
}

#[test]
fn what_was_read_back_and_cut_off_is_not_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreOptions::default().exclusive(true).open(folder.path()).unwrap();
    // The second session gets the place in the pack that the first had.
    let mut given_up = None;
    for bytes in [b"one", b"two"] {
        let session = store.scratch_session().unwrap();
        let mut writer = session.tree_writer().unwrap();
        let id = writer.put(ObjectKind::Chunk, bytes).unwrap();
        writer.flush().unwrap();
        assert_eq!(*writer.read_back().unwrap().get(&id).unwrap(), *bytes);
        drop(writer);
        if given_up.is_none() {
            given_up = Some(id);
            store.0.abandon(session);
            continue;
        }
        store.0.publish(session, None, |_| Ok(())).unwrap();
        let reader = store.object_reader().unwrap();
        assert_eq!(*reader.get(&id).unwrap(), *bytes);
        assert!(reader.get(&given_up.unwrap()).unwrap_err().is_corrupt());
    }
}

#[test]
fn what_a_dead_process_held_is_taken_back() {
    let given = Given::with_large_sessions();
    given.import("one");
    let before = given.packs();
    let session = given.store.scratch_session().unwrap();
    append(&session, &[1; 10_000]);
    let path = given.pack_path(before[0].0);
    assert!(fs::metadata(&path).unwrap().len() > before[0].1.committed_bytes);
    let other = Store::open(given.store.location()).unwrap();
    other.projects().unwrap();
    assert_eq!(given.leases().len(), 1, "the living keep what they hold");

    given.forge_death();
    other.projects().unwrap();
    assert_eq!(given.leases(), []);
    assert_eq!(given.packs(), before);
    assert_eq!(fs::metadata(&path).unwrap().len(), before[0].1.committed_bytes);
    let late = given.store.0.publish(session, None, |_| Ok(())).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict, "who was taken for dead can't publish");
    assert_eq!(given.packs(), before);
}

#[test]
fn a_dead_process_leaves_no_pack_that_was_never_published() {
    let given = Given::with_large_sessions();
    let session = given.store.scratch_session().unwrap();
    append(&session, &[1; 10_000]);
    let path = given.pack_path(given.packs()[0].0);
    let stray = given.pack_path(PackId::new(77));
    fs::write(&stray, "from a kill between the row's end and the file's").unwrap();
    let stray_state = given.store.location().join(state_file(crate::id::DirectoryId::new(77)));
    fs::write(&stray_state, "from a kill in the transaction that made it").unwrap();
    assert!(path.exists());
    given.forge_death();
    given.store.projects().unwrap();
    assert_eq!(given.packs(), []);
    assert!(!path.exists() && !stray.exists() && !stray_state.exists());
    given.import("goes on");
}

#[test]
fn what_a_session_remembers_does_not_grow_with_what_it_writes() {
    let given = Given::with(StoreOptions::default().held_bytes(0).pack_bytes(100_000).exclusive(true));
    let session = given.store.scratch_session().unwrap();
    let mut writer = session.writer().unwrap();
    let object = |number: u32| crate::chunk::tests::noise(number.into(), 1000);
    let mut most = 0;
    for number in 0..3000 {
        writer.put(ObjectKind::Chunk, &object(number)).unwrap();
        most = most.max(session.claimed_objects());
    }
    assert!(most < 900, "{most} of 3000");
    let before = session.written_bytes();
    for number in 0..3000 {
        writer.put(ObjectKind::Chunk, &object(number)).unwrap();
    }
    writer.flush().unwrap();
    assert!(session.written_bytes() - before < 400_000, "what is in sealed packs is not written again");
    drop(writer);
    given.store.0.publish(session, None, |_| Ok(())).unwrap();
}

#[test]
fn two_large_sessions_have_a_pack_each() {
    let given = Given::with_large_sessions();
    given.import("one");
    let first = given.store.scratch_session().unwrap();
    let second = given.store.scratch_session().unwrap();
    append(&first, &[1; 1000]);
    append(&second, &[1; 1000]);
    let owners: std::collections::BTreeSet<_> = given.packs().iter().map(|(_, pack)| pack.owner).collect();
    assert_eq!(owners.len(), 2, "{owners:?}");
    given.store.0.abandon(first);
    given.store.0.publish(second, None, |_| Ok(())).unwrap();
    assert!(given.packs().iter().all(|(_, pack)| pack.owner.is_none()));
    for (id, pack) in given.packs() {
        assert_eq!(fs::metadata(given.pack_path(id)).unwrap().len(), pack.committed_bytes);
    }
}

#[test]
fn a_failed_publication_leaves_nothing() {
    for given in [Given::new(), Given::with_large_sessions()] {
        given.import("one");
        let before = given.packs();
        let session = given.store.scratch_session().unwrap();
        append(&session, &[5; 1000]);
        assert!(given.store.0.publish(session, None, refuse).unwrap_err().is_conflict());
        assert_eq!((given.packs(), given.leases()), (before.clone(), vec![]));
        for (id, pack) in before {
            assert_eq!(fs::metadata(given.pack_path(id)).unwrap().len(), pack.committed_bytes);
        }
    }
}

fn refuse(_: &mut crate::catalog::WriteTx) -> Result<()> {
    Err(Error::conflict(Subject::Catalog, "refused by the test"))
}

#[test]
fn sessions_that_end_together_are_published_together() {
    for given in [Given::new(), Given::with_large_sessions()] {
        let before = given.store.0.read(|tx| tx.last(Sequence::Index)).unwrap();
        let publishers: u8 = 8;
        let kinds = std::thread::scope(|scope| {
            // As if a publication were under way: all others wait for its end.
            let turn = given.store.0.publications.pause();
            let publish = |number: u8| {
                let given = &given;
                scope.spawn(move || {
                    let session = given.store.scratch_session().unwrap();
                    append(&session, &[number; 1000]);
                    let closure =
                        if number % 4 == 3 { refuse } else { |_: &mut crate::catalog::WriteTx| Ok(()) };
                    given.store.0.publish(session, None, closure).map_err(|error| error.kind())
                })
            };
            let threads: Vec<_> = (0..publishers).map(publish).collect();
            while given.store.0.publications.waiting() < publishers.into() {
                std::thread::yield_now();
            }
            drop(turn);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        for (number, kind) in kinds.into_iter().enumerate() {
            let is_refused = number % 4 == 3;
            assert_eq!(kind, if is_refused { Err(ErrorKind::Conflict) } else { Ok(()) });
            let id = ObjectKind::Chunk.id_of(&[number as u8; 1000]);
            let reader = given.store.object_reader().unwrap();
            assert_eq!(reader.find(&id).is_some(), !is_refused);
            assert!(is_refused || *reader.get(&id).unwrap() == [number as u8; 1000]);
        }
        assert_eq!(given.leases(), []);
        let transactions = given.store.0.read(|tx| tx.last(Sequence::Index)).unwrap() - before;
        let own_packs = if given.store.0.options.held_bytes == 0 { 6 } else { 1 };
        assert_eq!(transactions, own_packs, "each pack's row is written once");
    }
}

#[test]
fn rows_that_are_moved_to_two_segments_at_once_are_counted_once() {
    let given = Given::with_large_sessions();
    let catalog = given.store.0.catalog().unwrap();
    let first = given.store.scratch_session().unwrap();
    append(&first, &[1; 1000]);
    given.store.0.publish(first, None, |_| Ok(())).unwrap();
    let second = given.store.scratch_session().unwrap();
    append(&second, &[2; 1000]);
    let (host, unpublished) = second.finish().unwrap();
    let crate::pack::session::Unpublished::Pack(Some(written)) = unpublished else { panic!("it is large") };
    let indexed = host.index(&written).unwrap();
    assert_eq!(indexed.objects, 2);
    // What upkeep does meanwhile.
    let pack = written.pack.id;
    let (segment, frames) =
        catalog.write(|tx| Ok((packs::next_segment(tx)?, packs::frames(tx, pack)?))).unwrap();
    let before = given.packs()[0].1;
    let moved =
        packs::write_segment(&*given.store.0.disk, segment, pack, &frames, before.committed_bytes).unwrap();
    catalog.write(|tx| packs::publish_segment(tx, moved)).unwrap();
    catalog.write(|tx| packs::publish_indexed(tx, &written, indexed)).unwrap();
    let [(_, record)] = given.packs()[..] else { panic!("one pack") };
    assert_eq!((record.objects, record.indexed_objects), (2, 2));
    assert_eq!((record.committed_bytes, record.indexed_bytes), (written.pack.end, written.pack.end));
    let reader = given.store.object_reader().unwrap();
    for byte in [1, 2] {
        assert!(reader.find(&ObjectKind::Chunk.id_of(&[byte; 1000])).is_some());
    }
}

#[test]
fn full_packs_are_sealed_and_segments_merged_while_a_reader_keeps_its_view() {
    let given = Given::with(StoreOptions::default().row_objects(10).pack_bytes(2_000));
    let first = given.import("0").image;
    let early = given.project.find(&first.into()).unwrap();
    let images: Vec<_> = (1..200).map(|number| given.import(&number.to_string()).image).collect();
    given.store.wait_for_upkeep();
    // A publication that came while upkeep was about to end may have left something.
    given.import("last");
    given.store.wait_for_upkeep();
    let [open, sealed, segments] = given.counts();
    assert!(open <= 2 && sealed > 20 && segments <= 12, "{open} open, {sealed} sealed, {segments} segments");
    let files = |folder: &str| fs::read_dir(given.store.location().join(folder)).unwrap().count();
    assert_eq!((files("packs"), files("segments")), (open + sealed, segments));
    assert_eq!(given.leases(), []);
    let path = crate::TreePath::parse(b"content").unwrap();
    let read = |image: &Image| std::io::read_to_string(image.read_file(&path).unwrap()).unwrap();
    assert_eq!(read(&early), "0");
    let later = Store::open(given.store.location()).unwrap().default_project().unwrap();
    for (number, image) in images.iter().enumerate() {
        assert_eq!(read(&later.find(&(*image).into()).unwrap()), (number + 1).to_string());
    }
}

#[test]
fn image_ids_ascend_though_the_clock_goes_back() {
    let given = Given::new();
    let first = given.import("one").image;
    let ahead = image_id(time_and_counter(first) + (1 << 32), 0);
    given.store.0.catalog().unwrap().write(|tx| remember_image_id(tx, ahead)).unwrap();
    let second = given.import("two").image;
    let other = Store::open(given.store.location()).unwrap().default_project().unwrap();
    let third = given.import_into(&other, "three").image;
    assert!(first < ahead && ahead < second && second < third);
}

#[test]
fn of_two_commits_of_one_directory_the_second_is_a_conflict() {
    let given = Given::new();
    let image = given.project.find(&given.import("one").image.into()).unwrap();
    let directory = given.folder.path().join("checkout");
    image.check_out(&directory, CheckoutOptions::default()).unwrap();
    let stat = crate::host::source::SourceTree::open(&directory).unwrap().root_stat().unwrap();
    let stale = given
        .store
        .0
        .read(|tx| crate::ledger::directories::KnownDirectory::find(tx, &stat, DirectoryUse::Checkout))
        .unwrap()
        .unwrap();
    fs::write(directory.join("new"), "new").unwrap();
    given.project.commit(&directory, &CommitOptions::default()).unwrap();
    let catalog = given.store.0.catalog().unwrap();
    let change = crate::ledger::directories::StateChange::Append(stale, b"segment".to_vec());
    let place = crate::ledger::directories::DirectoryPlace::new(
        DirectoryUse::Checkout,
        given.project.id,
        &directory,
        &stat,
    )
    .unwrap();
    let update = crate::ledger::directories::StateUpdate { place, change, abandoned: Vec::new() };
    let late = catalog.write(|tx| given.store.0.advance_directory(tx, &update, &image.record));
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
    drop(catalog);
    assert!(
        !given.project.commit(&directory, &CommitOptions::default()).unwrap().is_new,
        "its state is whole"
    );
}

#[test]
fn tags_images_and_identities_agree() {
    let given = Given::new();
    let public = given.store.project(&"public".parse().unwrap()).unwrap();
    let names: Vec<crate::TagName> = ["a", "b", "c"].map(|name| name.parse().unwrap()).into();
    let theirs = given.import_into(&public, "public").image;
    let own = given.import("own").image;
    public.tag(&theirs.into(), &names).unwrap();
    let steps: [&dyn Fn() -> Result<()>; 7] = [
        &|| given.project.tag(&theirs.into(), &names[..2]).map(drop),
        &|| given.project.tag(&own.into(), &names[1..]).map(drop),
        &|| public.remove(&theirs.into(), true).map(drop),
        &|| given.project.untag(&names[0], None).map(drop),
        &|| given.project.tag(&own.into(), &names).map(drop),
        &|| given.project.remove(&own.into(), true).map(drop),
        &|| given.store.remove_project(given.project.name(), true),
    ];
    assert_rows_agree(&given.store);
    for step in steps {
        step().unwrap();
        assert_rows_agree(&given.store);
    }
    let left = given.store.0.read(|tx| tx.collect::<Images>(&[])).unwrap();
    assert_eq!(left, []);
}

/// The invariants of `tags` that span tables.
fn assert_rows_agree(store: &Store) {
    let check = |tx: &ReadTx| {
        let tags = tx.collect::<Tags>(&[])?;
        assert_eq!(tags.len(), tx.collect::<ImageTags>(&[])?.len());
        for ((scope, name), tag) in tags {
            assert!(tx.get::<ImageTags>(&((scope, tag.image), name))?.is_some());
            assert!(tx.get::<Images>(&(scope, tag.image))?.is_some());
        }
        for ((scope, image), record) in tx.collect::<Images>(&[])? {
            let is_tagged = !tx.collect::<ImageTags>(&key_bytes(&(scope, image)))?.is_empty();
            assert!(record.owner == scope || is_tagged, "an adopted image lives by its tags");
        }
        for ((scope, identity), image) in tx.collect::<Identities>(&[])? {
            let record = tx.get::<Images>(&(scope, image))?.unwrap();
            assert_eq!(crate::ledger::identity::identity_of(&record), identity);
        }
        Ok(())
    };
    store.0.read(check).unwrap();
}
