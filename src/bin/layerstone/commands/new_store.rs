//! A store that a command is about to make, and that goes again if the command fails.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstone::{ProjectName, Store, StoreOptions};

/// The file that makes a directory a store. It goes first, so that what a kill leaves is finished by the next that makes a
/// store there.
const FORMAT: &str = "format";
const GENERATIONS: &str = "generations";

/// What was not there before.
pub(super) struct NewStore {
    location: PathBuf,
    is_new_directory: bool,
    /// The missing directories that it lies in, the deepest first.
    folders: Vec<PathBuf>,
}

impl NewStore {
    /// Looks at where a store is to be; none if one is there.
    pub(super) fn planned(location: &Path) -> Option<Self> {
        if location.join(FORMAT).symlink_metadata().is_ok() {
            return None;
        }
        let folders = location.ancestors().skip(1).take_while(|folder| !folder.as_os_str().is_empty());
        let folders = folders.take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        Some(Self { location: location.to_owned(), is_new_directory: !location.exists(), folders })
    }

    /// Removes the store, unless another process uses it or put something into it.
    pub(super) fn take_back(self) {
        let is_made = self.location.join(FORMAT).symlink_metadata().is_ok();
        if is_made && !self.remove() {
            return;
        }
        // One that could not be made has left nothing.
        if self.is_new_directory && !self.location.exists() {
            // One that was not made, either, is passed over, and one that somebody uses stays.
            for folder in &self.folders {
                let _ = fs::remove_dir(folder);
            }
        }
    }

    /// Removes the store; false if it stays.
    fn remove(&self) -> bool {
        let options = StoreOptions::default().create(false).exclusive(true).lock_timeout(Duration::ZERO);
        let Ok(store) = options.open(&self.location) else { return false };
        if !is_empty(&store) || self.is_in_use() || fs::remove_file(self.location.join(FORMAT)).is_err() {
            return false;
        }
        if self.is_new_directory {
            return fs::remove_dir_all(&self.location).is_ok();
        }
        for entry in fs::read_dir(&self.location).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let _ =
                if is_directory { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        }
        true
    }

    /// Whether another process has begun something: it keeps the generation in which it did.
    fn is_in_use(&self) -> bool {
        let generations = fs::read_dir(self.location.join(GENERATIONS)).into_iter().flatten().flatten();
        generations.into_iter().any(|generation| {
            let file = File::options().write(true).open(generation.path());
            file.is_ok_and(|file| file.try_lock().is_err())
        })
    }
}

/// Whether nothing but the default project was made.
fn is_empty(store: &Store) -> bool {
    let is_untouched = |project: &layerstone::ProjectInfo| {
        project.image_count == 0
            && matches!(project.name.as_str(), ProjectName::DEFAULT | ProjectName::PUBLIC)
    };
    store.projects().is_ok_and(|projects| projects.iter().all(is_untouched))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use layerstone::ImportOptions;

    use super::*;

    #[test]
    fn what_another_uses_or_has_filled_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let location = scratch.path().join("store");
        let made = || NewStore { location: location.clone(), is_new_directory: true, folders: Vec::new() };
        let project = Store::open(&location).unwrap().default_project().unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            let import = scope.spawn(|| project.import_tar(reader, &ImportOptions::default()));
            // A member, so that it has begun for sure.
            let mut tar = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_size(1);
            header.set_mode(0o644);
            tar.append_data(&mut header, "file", &b"x"[..]).unwrap();
            let tar = tar.into_inner().unwrap();
            writer.write_all(&tar[..512]).unwrap();
            while !made().is_in_use() {
                std::thread::yield_now();
            }
            made().take_back();
            assert!(location.join(FORMAT).exists(), "it is in use");
            writer.write_all(&tar[512..]).unwrap();
            drop(writer);
            import.join().unwrap().unwrap();
        });
        made().take_back();
        assert!(location.join(FORMAT).exists(), "it has an image");
        drop(project);
        fs::remove_dir_all(&location).unwrap();
        Store::open(&location).unwrap().default_project().unwrap();
        made().take_back();
        assert!(!location.exists());
    }
}
