//! Checkouts that share files: each is what it would be alone, whatever happens to the others and to the cache.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use layerstone::{
    CheckoutOptions, CheckoutReport, CommitOptions, ErrorKind, Image, ImportOptions, Project, SharedFiles,
    Sharing, Store,
};

use crate::compare::assert_equal;
use crate::given::{Place, project, set_mtime};
use crate::roundtrip::{noise, write_everything};

/// A store with an image of a directory, and a cache for its checkouts.
struct Given {
    place: Place,
    project: Project,
    source: PathBuf,
    image: Image,
    sharing: Sharing,
}

impl Given {
    fn new(sharing: Sharing, write: impl FnOnce(&Path)) -> Self {
        let place = Place::new();
        let project = project(&Store::open(place.path("store")).unwrap(), "p");
        let source = place.directory("source", &[]);
        write(&source);
        let image = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
        let image = project.find(&image.into()).unwrap();
        Self { place, project, source, image, sharing }
    }

    fn cache(&self) -> PathBuf {
        self.place.path("cache")
    }

    fn options(&self) -> CheckoutOptions {
        let shared = SharedFiles { directory: self.cache(), sharing: self.sharing };
        CheckoutOptions { shared: Some(shared), ..CheckoutOptions::default() }
    }

    /// A checkout that is checked to be what was imported.
    fn check_out(&self, name: &str) -> (PathBuf, CheckoutReport) {
        let directory = self.place.path(name);
        let report = self.image.check_out(&directory, self.options()).unwrap();
        assert_equal(&self.source, &directory);
        (directory, report)
    }

    fn commit(&self, directory: &Path) -> layerstone::WriteReport {
        self.project.commit(directory, &CommitOptions::default()).unwrap()
    }

    /// The files of the cache.
    fn cached(&self) -> Vec<PathBuf> {
        let list = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        list(&self.cache()).flat_map(|folder| list(&folder).collect::<Vec<_>>()).collect()
    }
}

fn inode(path: PathBuf) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

/// Files of which each can be shared.
const FILES: u64 = 12;

fn some_files(root: &Path) {
    for number in 0..FILES {
        let len = if number % 4 == 0 { 300_000 } else { 3_000 };
        fs::write(root.join(format!("file-{number:02}")), noise(len, number)).unwrap();
    }
}

#[test]
fn everything_comes_back_twice() {
    for sharing in [Sharing::HardLink, Sharing::Reflink] {
        let given = Given::new(sharing, write_everything);
        let (first, fresh) = given.check_out("first");
        let (second, shared) = given.check_out("second");
        assert_eq!(fresh.files_shared, 0);
        assert_eq!(CheckoutReport { files_shared: 0, ..shared }, fresh);
        if sharing == Sharing::HardLink {
            assert_eq!(usize::try_from(shared.files_shared).unwrap(), given.cached().len());
            let is_one = |name: &str| inode(first.join(name)) == inode(second.join(name));
            assert!(is_one("bytes-65536") && is_one("sparse"));
            assert!(!is_one("bytes-65537"), "a hard link group of the image");
        }
        for directory in [&first, &second] {
            let report = given.commit(directory);
            assert_eq!((report.image, report.is_new), (given.image.info().id, false), "{sharing:?}");
            assert!(sharing == Sharing::HardLink || report.examined <= 1, "{report:?}");
            let again = given.project.import_directory(directory, &ImportOptions::default()).unwrap();
            assert_eq!(again.image, report.image);
        }
        fs::remove_dir_all(given.cache()).unwrap();
        assert_equal(&given.source, &first);
        assert_equal(&given.source, &second);
    }
}

#[test]
fn equal_files_of_one_tree_stay_two() {
    let given = Given::new(Sharing::HardLink, |root| {
        for name in ["one", "other"] {
            fs::write(root.join(name), noise(5_000, 1)).unwrap();
            set_mtime(&root.join(name), 1_000_000_000, 0);
        }
    });
    let (first, _) = given.check_out("first");
    let (second, report) = given.check_out("second");
    assert_eq!(report.files_shared, 2);
    assert_ne!(inode(second.join("one")), inode(second.join("other")));
    assert_eq!(inode(second.join("one")), inode(first.join("one")));
}

#[test]
fn images_that_follow_one_another_share_what_they_have_in_common() {
    let given = Given::new(Sharing::HardLink, some_files);
    given.check_out("first");
    let source = &given.source;
    for generation in 1..5 {
        let changed = source.join(format!("file-{generation:02}"));
        fs::write(&changed, noise(4_000, 100 + u64::from(generation))).unwrap();
        // The same content with another attribute is another inode.
        fs::set_permissions(source.join("file-11"), Permissions::from_mode(0o600 + generation)).unwrap();
        let image = given.project.import_directory(source, &ImportOptions::default()).unwrap().image;
        let directory = given.place.path(&format!("generation-{generation}"));
        let image = given.project.find(&image.into()).unwrap();
        assert_eq!(image.check_out(&directory, given.options()).unwrap().files_shared, FILES - 2);
        assert_equal(source, &directory);
    }
}

#[test]
fn a_linked_file_that_was_changed_is_committed_and_not_shared_again() {
    let given = Given::new(Sharing::HardLink, some_files);
    let (first, _) = given.check_out("first");
    let (second, _) = given.check_out("second");
    fs::write(first.join("file-03"), "changed in place").unwrap();
    fs::remove_file(first.join("file-04")).unwrap();
    fs::write(first.join("file-04"), "a file of its own").unwrap();
    assert_eq!(fs::read(second.join("file-03")).unwrap(), b"changed in place", "as is documented");
    assert_eq!(fs::read(second.join("file-04")).unwrap(), noise(300_000, 4));

    let (third, report) = given.check_out("third");
    assert_eq!(report.files_shared, FILES - 1);
    assert_eq!(given.check_out("fourth").1.files_shared, FILES);
    for (directory, changes) in [(&first, 2), (&second, 1), (&third, 0)] {
        let image = given.project.find(&given.commit(directory).image.into()).unwrap();
        assert!(given.image.diff(&image).unwrap().count() >= changes);
        let again = given.place.path("again");
        image.check_out(&again, CheckoutOptions::default()).unwrap();
        assert_equal(directory, &again);
        fs::remove_dir_all(again).unwrap();
    }
    // What a commit has looked at is known from then on, until it is linked once more.
    std::thread::sleep(std::time::Duration::from_millis(50));
    given.commit(&third);
    assert_eq!(given.commit(&third).examined, 0);
    given.check_out("fifth");
    let report = given.commit(&third);
    assert_eq!((report.image, report.examined), (given.image.info().id, FILES));
}

#[test]
fn what_was_damaged_in_the_cache_is_not_taken_but_replaced() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("cut", |path| fs::File::options().write(true).open(path).unwrap().set_len(100).unwrap()),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("written to", |path| {
            let len = fs::metadata(path).unwrap().len();
            fs::write(path, vec![7; usize::try_from(len).unwrap()]).unwrap();
        }),
        ("with another mode", |path| fs::set_permissions(path, Permissions::from_mode(0o4711)).unwrap()),
        ("a link", |path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
        ("a pipe", |path| {
            fs::remove_file(path).unwrap();
            let fifo = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, fifo, 0o600.into(), 0).unwrap();
        }),
        ("another's file", |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, noise(3_000, 77)).unwrap();
        }),
    ];
    let given = Given::new(Sharing::HardLink, some_files);
    for (what, damage) in damages {
        // Nobody else's: what is damaged here is damaged in all checkouts that have it.
        let (directory, _) = given.check_out("first");
        fs::remove_dir_all(directory).unwrap();
        let cached = given.cached();
        assert_eq!(cached.len() as u64, FILES);
        cached.iter().take(5).for_each(|path| damage(path));
        let (directory, report) = given.check_out("next");
        assert_eq!(report.files_shared, FILES - 5, "{what}");
        let (last, report) = given.check_out("last");
        assert_eq!(report.files_shared, FILES, "{what}");
        for directory in [directory, last] {
            fs::remove_dir_all(directory).unwrap();
        }
    }
}

#[test]
fn checkouts_at_once_share_a_cache_that_is_deleted_meanwhile() {
    let given = Given::new(Sharing::HardLink, some_files);
    given.check_out("before");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let given = &given;
                scope.spawn(move || (0..8).for_each(|i| drop(given.check_out(&format!("{worker}-{i}")))))
            })
            .collect();
        let deleter = scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                // It may be filled again while it is deleted, or not be there.
                let _ = fs::remove_dir_all(given.cache());
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let ends: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        is_done.store(true, Ordering::Relaxed);
        deleter.join().unwrap();
        assert!(ends.iter().all(Result::is_ok), "{ends:?}");
    });
    given.check_out("after");
    assert_eq!(given.check_out("at last").1.files_shared, FILES);
}

#[test]
fn a_file_with_as_many_links_as_it_can_have_is_left_anew() {
    let given = Given::new(Sharing::HardLink, |root| fs::write(root.join("file"), noise(500, 1)).unwrap());
    let (first, _) = given.check_out("first");
    let links = given.place.directory("links", &[]);
    // ext4 gives an inode 65,000 names, others many more: then there is nothing to see.
    let make = |number: u32| fs::hard_link(first.join("file"), links.join(number.to_string()));
    let Some(error) = (0..65_000).find_map(|number| make(number).err()) else { return };
    assert_eq!(error.kind(), std::io::ErrorKind::TooManyLinks);
    assert_eq!(given.check_out("second").1.files_shared, 0);
    let (third, report) = given.check_out("third");
    assert_eq!(report.files_shared, 1);
    assert_ne!(inode(third.join("file")), inode(first.join("file")));
}

#[test]
fn a_cache_that_others_could_write_to_is_refused() {
    let given = Given::new(Sharing::HardLink, some_files);
    let check_out = |directory: PathBuf| {
        let shared = SharedFiles { directory, sharing: Sharing::HardLink };
        let options = CheckoutOptions { shared: Some(shared), ..CheckoutOptions::default() };
        given.image.check_out(given.place.path("copy"), options).unwrap_err()
    };
    fs::create_dir(given.cache()).unwrap();
    fs::set_permissions(given.cache(), Permissions::from_mode(0o777)).unwrap();
    let error = check_out(given.cache());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("nobody else"), "{error}");
    assert_eq!(check_out(given.place.path("store/cache")).kind(), ErrorKind::Invalid);
    assert_eq!(check_out(given.place.path("absent/cache")).kind(), ErrorKind::NotFound);
    assert_eq!(check_out(given.source.join("file-01")).kind(), ErrorKind::Io);
    let left: Vec<_> =
        fs::read_dir(given.place.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "store, source and cache, and no half checkout: {left:?}");
}
