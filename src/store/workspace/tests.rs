//! What is left by a boot and by processes that are gone.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::catalog::record::{LowerRecord, LowerState, PlaceRecord};
use crate::catalog::table::Lowers;
use crate::format::record::Added;
use crate::host::mounts::end_mount;
use crate::{CommitOptions, GcOptions, GcReport, Image, ImportOptions, Store};

struct Given {
    folder: TempDir,
    store: Store,
    project: Project,
    image: Image,
}

/// A store with an image that has one file; none where no overlay can be mounted, which tests that must run don't accept.
fn given() -> Option<Given> {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "text").unwrap();
    let store = Store::open(folder.path().join("store")).unwrap();
    let project = store.default_project().unwrap();
    let id = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let image = project.find(&id.into()).unwrap();
    let place = store.0.workspaces().unwrap();
    place.make().unwrap();
    if let Some(why) = place.why_not_overlay().unwrap() {
        assert!(std::env::var_os("LAYERSTONE_SYSTEM_TESTS").is_none(), "{why}");
        return None;
    }
    Some(Given { folder, store, project, image })
}

impl Given {
    fn create(&self, temporary: bool) -> Workspace {
        self.image.create_workspace(&WorkspaceOptions { temporary, ..WorkspaceOptions::default() }).unwrap()
    }

    /// Changes every row of workspaces.
    fn change(&self, change: impl Fn(WorkspaceRecord) -> WorkspaceRecord) {
        let write = |tx: &mut WriteTx| {
            let rows = tx.collect::<Workspaces>(&[])?;
            rows.into_iter().try_for_each(|(key, record)| tx.put::<Workspaces>(&key, &change(record)))
        };
        self.store.0.catalog().unwrap().write(write).unwrap();
    }

    fn lowers(&self) -> Vec<LowerRecord> {
        let rows = self.store.0.read(|tx| tx.collect::<Lowers>(&[])).unwrap();
        rows.into_iter().map(|(_, record)| record).collect()
    }

    fn change_lowers(&self, change: impl Fn(LowerRecord) -> LowerRecord) {
        let write = |tx: &mut WriteTx| {
            let rows = tx.collect::<Lowers>(&[])?;
            rows.into_iter().try_for_each(|(key, record)| tx.put::<Lowers>(&key, &change(record)))
        };
        self.store.0.catalog().unwrap().write(write).unwrap();
    }

    fn directories(&self) -> usize {
        self.store.0.workspaces().unwrap().list().unwrap().0.len()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let folder = self.store.0.workspaces().unwrap();
        for id in folder.list().unwrap().0 {
            let _ = end_mount(&folder.merged(id));
        }
        assert!(self.folder.path().exists());
    }
}

/// Makes it look as if the holder's process had ended.
fn dead(record: &WorkspaceRecord) -> WorkspaceRecord {
    let holder = process::this_process();
    let holder = HolderRecord { started_ticks: holder.started_ticks + 1, ..holder };
    WorkspaceRecord { holder: Some(holder), ..record.clone() }
}

#[test]
fn after_a_boot_what_is_written_is_there_and_what_it_lay_over_is_made_again() {
    let Some(given) = given() else { return };
    let workspace = given.create(false);
    let path = workspace.path().unwrap();
    fs::write(path.join("new"), "new").unwrap();
    end_mount(&path).unwrap();
    // A power cut took what was in them.
    let [lower] = given.lowers().try_into().unwrap();
    let folder = &given.store.0.workspaces().unwrap();
    fs::write(folder.files(lower.id).join("file"), "").unwrap();
    given.change_lowers(|lower| LowerRecord { boot: "another".to_owned(), ..lower });

    assert_eq!(workspace.path().unwrap(), path);
    assert_eq!(fs::read(path.join("file")).unwrap(), b"text");
    assert_eq!(fs::read(path.join("new")).unwrap(), b"new");
    let [again] = given.lowers().try_into().unwrap();
    assert!(again.id != lower.id && !folder.directory(lower.id).exists());
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    assert_eq!(given.project.find(&made.into()).unwrap().info().parent, Some(given.image.id()));
}

#[test]
fn what_a_workspace_wrote_before_a_boot_can_lie_below_others_after_it() {
    let Some(given) = given() else { return };
    let workspace = given.create(false);
    fs::write(workspace.path().unwrap().join("new"), "new").unwrap();
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    given.change_lowers(|lower| LowerRecord { boot: "another".to_owned(), ..lower });
    let image = given.project.find(&made.into()).unwrap();
    let next = image.create_workspace(&WorkspaceOptions::default()).unwrap();
    assert_eq!(fs::read(next.path().unwrap().join("new")).unwrap(), b"new");
    let own = given.lowers().into_iter().filter(|lower| lower.boot == process::boot());
    assert_eq!(own.map(|lower| lower.below).collect::<Vec<_>>(), [None], "one of its own, over nothing");
}

#[test]
fn a_lower_directory_that_was_not_finished_is_made_again() {
    let Some(given) = given() else { return };
    given.create(false).discard().unwrap();
    let [lower] = given.lowers().try_into().unwrap();
    given.change_lowers(|lower| LowerRecord { state: LowerState::Unfinished, ..lower });
    let workspace = given.create(false);
    assert_eq!(fs::read(workspace.path().unwrap().join("file")).unwrap(), b"text");
    let [again] = given.lowers().try_into().unwrap();
    assert_ne!(again.id, lower.id);
    assert_eq!(given.directories(), 2);
}

#[test]
fn a_collection_removes_lower_directories_of_images_that_are_gone() {
    let Some(given) = given() else { return };
    let workspace = given.create(false);
    fs::write(workspace.path().unwrap().join("new"), "new").unwrap();
    let made = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
    let collect = || given.store.collect_garbage(&crate::GcOptions::default()).unwrap();
    collect();
    assert_eq!(given.directories(), 2, "both have their images");
    let next =
        given.project.find(&made.into()).unwrap().create_workspace(&WorkspaceOptions::default()).unwrap();
    given.project.remove(&given.image.id().into(), false).unwrap();
    collect();
    assert_eq!(given.directories(), 3, "one lies over the other, and the workspace over both");
    next.discard().unwrap();
    given.project.remove(&made.into(), false).unwrap();
    collect();
    assert_eq!((given.directories(), given.lowers()), (0, Vec::new()));
}

#[test]
fn one_whose_files_somebody_removed_is_made_again() {
    let Some(given) = given() else { return };
    given.create(false).discard().unwrap();
    let [lower] = given.lowers().try_into().unwrap();
    fs::remove_dir_all(given.store.0.workspaces().unwrap().directory(lower.id)).unwrap();
    let workspace = given.create(false);
    assert_eq!(fs::read(workspace.path().unwrap().join("file")).unwrap(), b"text");
}

#[test]
fn a_temporary_one_ends_with_its_process() {
    let Some(given) = given() else { return };
    let workspace = given.create(true);
    let path = workspace.path().unwrap();
    fs::write(path.join("new"), "new").unwrap();
    let info = workspace.info().unwrap();
    assert_eq!(info.process, Some(std::process::id()));
    given.change(|record| dead(&record));
    assert!(!given.project.workspaces().unwrap().contains(&info));
    assert!(given.project.workspace(workspace.name()).unwrap_err().is_not_found());
    // It does not keep the image from being removed.
    given.project.remove(&given.image.id().into(), false).unwrap();
    // Nor a collection from taking its packs, which only wait for the handle of it.
    let report = given.store.collect_garbage(&crate::GcOptions::default()).unwrap();
    assert!(report.waiting_packs > 0, "{report:?}");
    assert!(!path.exists());
    assert_eq!(given.directories(), 0, "nor is what it lay over kept");
}

#[test]
fn a_temporary_one_with_what_is_not_its_own_stays() {
    let Some(given) = given() else { return };
    let workspace = given.create(true);
    let path = workspace.path().unwrap();
    fs::write(path.join("new"), "new").unwrap();
    end_mount(&path).unwrap();
    fs::write(path.join("lost"), "?").unwrap();
    given.change(|record| dead(&record));
    let report = given.store.collect_garbage(&crate::GcOptions::default()).unwrap();
    assert_eq!(report.left_over, []);
    let [info] = given.project.workspaces().unwrap().try_into().unwrap();
    assert_eq!((info.process, info.is_mounted), (None, false));
    assert!(workspace.path().unwrap_err().is_conflict());
    fs::remove_file(path.join("lost")).unwrap();
    assert_eq!(fs::read(workspace.path().unwrap().join("new")).unwrap(), b"new");
    workspace.commit_and_end(&CommitOptions::default()).unwrap();
}

#[test]
fn one_that_another_process_is_for_or_makes_is_left_alone() {
    let Some(given) = given() else { return };
    let workspace = given.create(true);
    let path = workspace.path().unwrap();
    // This process's parent lives.
    let parent = std::os::unix::process::parent_id();
    let stat = fs::read_to_string(format!("/proc/{parent}/stat")).unwrap();
    let started = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap();
    let holder =
        HolderRecord { process: parent, started_ticks: started.parse().unwrap(), ..process::this_process() };
    assert!(!process::is_dead(&holder));
    for form in [WorkspaceForm::Overlay, WorkspaceForm::Unfinished] {
        given.change(|record| WorkspaceRecord { holder: Some(holder.clone()), form, ..record });
        let store = &given.store.0;
        store.clean_workspaces(&store.workspaces().unwrap()).unwrap();
        assert!(path.join("file").exists());
        for error in [
            workspace.path().unwrap_err(),
            workspace.commit(&CommitOptions::default()).unwrap_err(),
            workspace.discard().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InUse);
            assert!(error.to_string().contains(&format!("is used by process {parent}")), "{error}");
        }
    }
}

#[test]
fn what_was_left_over_goes_with_the_next() {
    let Some(given) = given() else { return };
    let workspace = given.create(false);
    given.change(|record| WorkspaceRecord { form: WorkspaceForm::Unfinished, ..dead(&record) });
    let folder = &given.store.0.workspaces().unwrap();
    for stray in ["0000000077", "probe-0123", "probe-young", "somebody-s"] {
        fs::create_dir_all(folder.path().join(stray).join("files/deep")).unwrap();
    }
    #[expect(clippy::disallowed_methods, reason = "a file's time, not the store's")]
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3_600);
    fs::File::open(folder.path().join("probe-0123")).unwrap().set_modified(hour_ago).unwrap();
    let next = given.create(false);
    assert!(workspace.info().unwrap_err().is_not_found());
    assert_eq!(given.directories(), 2, "its own and what it lies over");
    assert!(!folder.path().join("probe-0123").exists());
    for other in ["probe-young", "somebody-s"] {
        assert!(folder.path().join(other).exists());
    }
    assert_eq!(fs::read(next.path().unwrap().join("file")).unwrap(), b"text");
}

#[test]
fn what_killed_processes_left_is_counted_as_freed() {
    let Some(given) = given() else { return };
    let workspace = given.create(false);
    end_mount(&workspace.path().unwrap()).unwrap();
    let folder = given.store.0.workspaces().unwrap();
    // As if it had been killed while it made what the workspace lies over.
    let [lower] = given.lowers().try_into().unwrap();
    let (files, private) = (folder.files(lower.id), folder.directory(lower.id).join(".layerstone-0-1"));
    fs::rename(files, &private).unwrap();
    fs::write(private.join("large"), vec![1; 100_000]).unwrap();
    given.change_lowers(|lower| LowerRecord { state: LowerState::Unfinished, bytes: Added(None), ..lower });
    given.change(|record| WorkspaceRecord { form: WorkspaceForm::Unfinished, ..dead(&record) });
    fs::write(folder.files(workspace.id).join("large"), vec![1; 50_000]).unwrap();
    fs::create_dir_all(folder.path().join("0000000077/files")).unwrap();
    fs::write(folder.path().join("0000000077/files/large"), vec![1; 25_000]).unwrap();
    let directories = given.directories();
    let collect =
        |dry_run| given.store.collect_garbage(&GcOptions { dry_run, ..GcOptions::default() }).unwrap();
    let dry = collect(true);
    assert_eq!(given.directories(), directories);
    let report = collect(false);
    assert_eq!(given.directories(), 0);
    for report in [dry, report] {
        let GcReport { workspace_bytes_before, freed_workspace_bytes, .. } = report;
        assert!((175_000..250_000).contains(&freed_workspace_bytes), "{report:?}");
        assert_eq!(workspace_bytes_before, freed_workspace_bytes);
        assert_eq!((report.idle_workspace_bytes, &report.left_over[..]), (0, &[][..]));
    }
    assert_eq!(collect(false).workspace_bytes_before, 0);
}

#[test]
fn rows_without_their_mount_or_folder_are_read_and_completed() {
    let Some(given) = given() else { return };
    let workspace = given.create(false);
    for mount in [Added(None), Added(Some(7))] {
        end_mount(&workspace.path().unwrap()).unwrap();
        let before = |place| PlaceRecord { mount, folder: Added(None), ..place };
        given.change(|record| WorkspaceRecord { place: Added(record.place.0.map(before)), ..record });
        let place = workspace.record().unwrap().place.0.unwrap();
        assert_eq!((place.mount, place.folder), (mount, Added(None)));
        assert_eq!(fs::read(workspace.path().unwrap().join("file")).unwrap(), b"text");
        assert!(workspace.record().unwrap().place.0.unwrap().folder.0.is_some());
    }
}
