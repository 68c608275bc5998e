#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a demonstration: it prints, and panics where something is not as it says"
)]
//! The main job, end to end, on a real directory of this machine.
//!
//! `cargo run --release --example tour [-- DIRECTORY]` imports the directory (default `/usr/share`), tags it in the public
//! scope and shadows the tag in a project, checks out, changes a few files, commits, shows what the commit is, checks out
//! again elsewhere and compares byte for byte, and works in workspaces. Everything happens in a temporary directory, which is removed at the end.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use layerstone::{
    CheckoutOptions, CommitOptions, ImageRef, ImportOptions, ListOptions, Store, TagName, WorkspaceOptions,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let source = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("/usr/share"), PathBuf::from);
    let work = Workplace::new()?;
    let store_path = work.0.join("store");
    println!("Importing {}; everything is kept in {} for now.\n", source.display(), work.0.display());

    let store = Store::open(&store_path)?;
    let public = store.project(&"public".parse()?)?;
    let project = store.create_project(&"tour".parse()?)?;
    let base: TagName = "base:latest".parse()?;
    let reference: ImageRef = "base".parse()?;

    let step = Step::begin("import it into the public scope as base:latest", &store_path)?;
    let imported = public
        .import_directory(&source, &ImportOptions { tags: vec![base.clone()], ..Default::default() })?;
    step.end(&format!("{} paths, {} in files", imported.entries, megabytes(imported.bytes)))?;

    let step = Step::begin("import it again: nothing is stored", &store_path)?;
    let again = public.import_directory(&source, &ImportOptions::default())?;
    assert_eq!(again.image, imported.image, "the same content is the same image");
    step.end("the same image")?;

    let step = Step::begin("check it out", &store_path)?;
    let first = work.0.join("first");
    project.find(&reference)?.check_out(&first, CheckoutOptions::default())?;
    step.end(&first.display().to_string())?;

    let changed = change_a_few_files(&first)?;
    let step =
        Step::begin("commit the changed directory, shadowing base:latest in project 'tour'", &store_path)?;
    let options = CommitOptions { tags: vec![base.clone()], comment: changed, ..Default::default() };
    let committed = project.commit(&first, &options)?;
    step.end(&format!("{} of {} paths were read", committed.examined, committed.entries))?;

    println!("\n'base' in project 'tour' is now {}", project.resolve(&reference)?.id);
    println!("'base' in the public scope is  {}\n", public.resolve(&reference)?.id);

    let (before, after) = (project.find(&imported.image.into())?, project.find(&committed.image.into())?);
    println!("What differs:");
    for difference in before.diff(&after)? {
        let difference = difference?;
        println!("  {:?} {} {}", difference.kind, difference.path, difference.what.join(","));
    }
    println!("\nHow it came to be, newest first:");
    for layer in after.history()? {
        println!(
            "  {} {}: +{} ~{} -{} {}",
            layer.created, layer.created_by, layer.added, layer.modified, layer.removed, layer.comment
        );
    }
    println!("\nImages that project 'tour' sees:");
    for image in project.images(&ListOptions::default())?.images {
        println!("  {} {:?} {} {:?}", image.id, image.scope, megabytes(image.bytes), image.tags);
    }
    println!();

    let step = Step::begin("check the commit out elsewhere", &store_path)?;
    let second = work.0.join("second");
    after.check_out(&second, CheckoutOptions::default())?;
    step.end(&second.display().to_string())?;

    let step = Step::begin("compare both directories byte for byte", &store_path)?;
    let compared = compare(&first, &second)?;
    step.end(&format!("{compared} paths are equal"))?;

    let step = Step::begin("make a workspace: a writable copy that shares the image's files", &store_path)?;
    let workspace = after.create_workspace(&WorkspaceOptions::default())?;
    step.end(workspace.why_copy().unwrap_or("an overlay mount"))?;
    fs::write(workspace.path()?.join("written-in-a-workspace"), "a new file\n")?;
    let step = Step::begin("commit what was written in it, which ends it", &store_path)?;
    let made = workspace.commit_and_end(&CommitOptions::default())?;
    step.end(&format!("{} of {} paths were read", made.examined, made.entries))?;
    let step = Step::begin("make a workspace on what came of it", &store_path)?;
    let workspace = project.find(&made.image.into())?.create_workspace(&WorkspaceOptions::default())?;
    assert!(workspace.path()?.join("written-in-a-workspace").exists());
    step.end("it lies over what the first wrote, where it is an overlay")?;
    workspace.discard()?;

    project.untag(&base, None)?;
    assert_eq!(project.resolve(&reference)?.id, imported.image, "the public tag is revealed again");
    println!("\nThe project's tag is removed, and 'base' is the public image again. All is well.");
    Ok(())
}

/// Changes, adds and removes files in a checkout, and says what it did.
fn change_a_few_files(directory: &Path) -> Outcome<String> {
    let files: Vec<_> =
        walk(directory)?.into_iter().filter(|(_, file)| file.is_file()).map(|(path, _)| path).collect();
    let every = (files.len() / 5).max(1);
    let chosen: Vec<_> = files.iter().step_by(every).take(5).collect();
    for path in &chosen {
        let mut bytes = fs::read(directory.join(path))?;
        bytes.extend_from_slice(b"changed by the tour\n");
        // A new file in place of the old one: works for files that are read-only too.
        fs::remove_file(directory.join(path))?;
        fs::write(directory.join(path), bytes)?;
    }
    fs::write(directory.join("added-by-the-tour"), "a new file\n")?;
    let removed = files.last().filter(|last| !chosen.contains(last));
    if let Some(last) = removed {
        fs::remove_file(directory.join(last))?;
    }
    Ok(format!("{} files changed, 1 added, {} removed", chosen.len(), removed.iter().count()))
}

/// Everything below a directory, by path.
fn walk(directory: &Path) -> Outcome<BTreeMap<PathBuf, fs::Metadata>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(directory.join(&folder))? {
            let path = folder.join(entry?.file_name());
            let metadata = fs::symlink_metadata(directory.join(&path))?;
            if metadata.is_dir() {
                pending.push(path.clone());
            }
            found.insert(path, metadata);
        }
    }
    Ok(found)
}

fn compare(a: &Path, b: &Path) -> Outcome<usize> {
    let (in_a, in_b) = (walk(a)?, walk(b)?);
    let names = |found: &BTreeMap<PathBuf, fs::Metadata>| found.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&in_a), names(&in_b), "both have the same paths");
    for (path, one) in &in_a {
        let other = &in_b[path];
        let facts =
            |file: &fs::Metadata| (file.mode(), file.uid(), file.gid(), file.mtime(), file.mtime_nsec());
        assert_eq!(facts(one), facts(other), "{}", path.display());
        let kind = one.file_type();
        if kind.is_file() {
            assert!(fs::read(a.join(path))? == fs::read(b.join(path))?, "{} differs", path.display());
        } else if kind.is_symlink() {
            let target = |folder: &Path| fs::read_link(folder.join(path)).map(OsString::from);
            assert_eq!(target(a)?.as_bytes(), target(b)?.as_bytes(), "{}", path.display());
        } else {
            assert!(kind.is_dir() || kind.is_fifo() || kind.is_socket(), "{} is a device", path.display());
        }
    }
    Ok(in_a.len())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A step that is timed, and whose growth of the store is measured.
struct Step<'s> {
    what: &'static str,
    store: &'s Path,
    bytes: u64,
    started: Instant,
}

impl<'s> Step<'s> {
    fn begin(what: &'static str, store: &'s Path) -> Outcome<Self> {
        Ok(Self { what, store, bytes: pack_bytes(store)?, started: Instant::now() })
    }

    fn end(self, result: &str) -> Outcome {
        let took = self.started.elapsed();
        let stored_kb = (pack_bytes(self.store)?.saturating_sub(self.bytes)) as f64 / 1000.0;
        println!("{:<70} {:>7.3} s  {stored_kb:>9.1} kB stored  {result}", self.what, took.as_secs_f64());
        Ok(())
    }
}

fn pack_bytes(store: &Path) -> Outcome<u64> {
    Ok(walk(&store.join("packs"))?.values().map(fs::Metadata::len).sum())
}

/// A temporary directory that goes away.
struct Workplace(PathBuf);

impl Workplace {
    fn new() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("layerstone-tour-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
