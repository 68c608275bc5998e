//! Importing a directory again: what is as it was is not read, and what changed is found however well it hides.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstone::{ImportOptions, Project, Store, WriteReport};

use crate::given::{Place, project, read, set_mtime, write_files};

/// Longer than a change counts as young.
const SETTLED: Duration = Duration::from_millis(2_100);

struct Given {
    place: Place,
    store: Store,
    project: Project,
    source: PathBuf,
}

/// A directory of all kinds of files, settled and imported: ten paths.
fn given() -> (Given, WriteReport) {
    let place = Place::new();
    let store = Store::open(place.path("store")).unwrap();
    let project = project(&store, "p");
    let large = crate::roundtrip::noise(300_000, 1);
    let source = place.directory(
        "source",
        &[
            ("a/one", b"one"),
            ("a/two", b"two"),
            ("b/large", &large),
            ("b/linked", b"linked"),
            ("c/last", b"last"),
        ],
    );
    fs::hard_link(source.join("b/linked"), source.join("c/first")).unwrap();
    symlink("one", source.join("a/symlink")).unwrap();
    std::thread::sleep(SETTLED);
    let given = Given { place, store, project, source };
    let report = given.import();
    assert!(report.is_new && report.examined == 11 && report.entries == 11, "{report:?}");
    (given, report)
}

impl Given {
    fn import(&self) -> WriteReport {
        self.project.import_directory(&self.source, &ImportOptions::default()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.source.join(name)
    }

    /// Imports the directory, and a copy of the store's answer that owes nothing to what was known: all of it read again.
    fn import_and_check(&self) -> WriteReport {
        let report = self.import();
        let reread = ImportOptions { reread: true, ..ImportOptions::default() };
        let all = self.project.import_directory(&self.source, &reread).unwrap();
        assert_eq!((all.image, all.is_new, all.examined), (report.image, false, report.entries));
        report
    }
}

fn state_files(place: &Place) -> Vec<PathBuf> {
    fs::read_dir(place.path("store/directories")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn what_is_as_it_was_is_not_read() {
    let (given, first) = given();
    let again = given.import();
    assert_eq!((again.image, again.is_new, again.examined, again.stored_bytes), (first.image, false, 0, 0));
    // Another handle, as another process has.
    let other = Store::open(given.place.path("store")).unwrap();
    let other = other.project(given.project.name()).unwrap();
    assert_eq!(other.import_directory(&given.source, &ImportOptions::default()).unwrap().examined, 0);

    fs::write(given.path("a/two"), "changed").unwrap();
    let changed = given.import_and_check();
    assert!(changed.is_new && changed.examined == 1, "{changed:?}");
    let image = given.project.find(&changed.image.into()).unwrap();
    assert_eq!(read(&image, "a/two").unwrap(), b"changed");
    assert_eq!(read(&image, "c/first").unwrap(), b"linked");
}

#[test]
fn every_kind_of_change_is_found() {
    let (given, _) = given();
    let path = |name: &str| given.path(name);
    let time = fs::metadata(path("a/one")).unwrap();
    let steps: [(&str, &dyn Fn()); 11] = [
        ("the same size and time", &|| {
            fs::write(path("a/one"), "uno").unwrap();
            set_mtime(&path("a/one"), time.mtime(), time.mtime_nsec());
        }),
        ("replaced by a file of the same size and time", &|| {
            fs::write(path("a/new"), "eno").unwrap();
            set_mtime(&path("a/new"), time.mtime(), time.mtime_nsec());
            fs::rename(path("a/new"), path("a/one")).unwrap();
        }),
        ("another mode", &|| fs::set_permissions(path("a/two"), fs::Permissions::from_mode(0o751)).unwrap()),
        ("a file more", &|| write_files(&given.source, &[("b/more/deep", b"more")])),
        ("a file less", &|| fs::remove_file(path("a/two")).unwrap()),
        ("a directory for a file", &|| {
            fs::remove_file(path("c/last")).unwrap();
            fs::create_dir(path("c/last")).unwrap();
        }),
        ("a link's other name gone", &|| fs::remove_file(path("c/first")).unwrap()),
        ("a new name for an old file", &|| fs::hard_link(path("b/large"), path("a/again")).unwrap()),
        ("through another name", &|| fs::write(path("a/again"), "short now").unwrap()),
        ("moved", &|| fs::rename(path("b"), path("z")).unwrap()),
        ("a symbolic link elsewhere", &|| {
            fs::remove_file(path("a/symlink")).unwrap();
            symlink("two", path("a/symlink")).unwrap();
        }),
    ];
    for (what, step) in steps {
        step();
        let report = given.import_and_check();
        assert!(report.is_new, "{what}: {report:?}");
    }
}

#[test]
fn what_changed_just_before_an_import_is_read_once_more() {
    let (given, first) = given();
    let again = given.import();
    assert_eq!(again.examined, 0);
    // The same bytes: the image is the same but for its times.
    fs::write(given.path("a/one"), "one").unwrap();
    assert_eq!(given.import().examined, 1);
    assert_eq!(given.import().examined, 1, "it may have changed since, within the clock's tick");
    std::thread::sleep(SETTLED);
    let settled = given.import();
    assert_eq!((settled.examined, settled.is_new), (1, false));
    assert_eq!(given.import().examined, 0);
    assert_ne!(settled.image, first.image);
}

#[test]
fn what_another_project_read_is_not_known_here() {
    let (given, first) = given();
    let other = project(&given.store, "q");
    let theirs = other.import_directory(&given.source, &ImportOptions::default()).unwrap();
    assert!(theirs.is_new && theirs.image != first.image && theirs.examined == 11, "{theirs:?}");
    assert_eq!(given.import().examined, 0);
}

#[test]
fn without_its_image_or_a_sound_state_all_is_read() {
    let (given, first) = given();
    given.project.remove(&first.image.into(), true).unwrap();
    let anew = given.import();
    assert!(anew.is_new && anew.examined == 11, "{anew:?}");
    assert_eq!(given.import().examined, 0);
    for damage in [|file: &Path| fs::write(file, "rubbish"), |file: &Path| fs::remove_file(file)] {
        let files = state_files(&given.place);
        assert_eq!(files.len(), 1, "the old one went");
        damage(&files[0]).unwrap();
        let report = given.import();
        assert_eq!((report.image, report.is_new, report.examined), (anew.image, false, 11));
        assert_eq!(given.import().examined, 0, "it is known again");
    }
    // Another directory in the same place.
    fs::rename(&given.source, given.place.path("moved")).unwrap();
    write_files(&given.source, &[("a/one", b"one")]);
    assert_eq!(given.import().examined, 3);
    let moved = given.project.import_directory(given.place.path("moved"), &ImportOptions::default()).unwrap();
    // To be renamed is a change of the directory itself.
    assert_eq!(
        (moved.image, moved.examined),
        (anew.image, 1),
        "a directory is known by itself, not by its name"
    );
}
