//! A store that a command is about to make, and that goes again if the command fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstone::{ProjectName, Store, StoreOptions};

/// The file that makes a directory a store. It goes first, so that what a kill leaves is finished by the next that makes a
/// store there.
const FORMAT: &str = "format";

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
        let options = StoreOptions::default().create(false).exclusive(true).lock_timeout(Duration::ZERO);
        let Ok(store) = options.open(&self.location) else { return };
        if !is_empty(&store) || fs::remove_file(self.location.join(FORMAT)).is_err() {
            return;
        }
        if self.is_new_directory {
            let _ = fs::remove_dir_all(&self.location);
            self.folders.iter().try_for_each(fs::remove_dir).unwrap_or_default();
            return;
        }
        for entry in fs::read_dir(&self.location).into_iter().flatten().flatten() {
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let _ =
                if is_directory { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
        }
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
