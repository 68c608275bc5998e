//! Every kind of damage to every kind of file, at several places of each: verification tells it, nothing reads back wrong,
//! and a repaired store is sound and has every image that the repair says it has.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use layerstone::id::ImageId;
use layerstone::{
    CheckoutOptions, CommitOptions, Durability, Error, ImportOptions, Project, RepairOptions, RepairReport,
    Result, Store, StoreOptions,
};

use crate::given::{Place, parse, project, read, tags};
use crate::roundtrip::noise;

/// What happens to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    FlipBit,
    Zero,
    Truncate,
    Delete,
    /// An older copy of it is put back.
    Older,
}

const AT_PLACES: [Change; 3] = [Change::FlipBit, Change::Zero, Change::Truncate];
const OF_FILES: [Change; 2] = [Change::Delete, Change::Older];

/// The files of an image.
type Content = BTreeMap<String, Vec<u8>>;

/// A store, a copy of it, and a copy from before its last commits.
struct Matrix {
    place: Place,
    /// Each image's project and content.
    images: BTreeMap<ImageId, (&'static str, Content)>,
    cases: u32,
    harmless: u32,
}

fn options() -> StoreOptions {
    StoreOptions::default()
        .pack_bytes(120_000)
        .row_objects(30)
        .held_bytes(60_000)
        .threads(1)
        .durability(Durability::Unsynced)
}

fn copy_tree(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if path.is_dir() {
            copy_tree(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

impl Matrix {
    fn new() -> Self {
        let place = Place::new();
        let mut matrix = Self { place, images: BTreeMap::new(), cases: 0, harmless: 0 };
        let root = matrix.root();
        let store = options().open(&root).unwrap();
        let own = project(&store, "p");
        let public = project(&store, "public");
        let mut content: Content =
            (0..8).map(|number| (format!("/n{number:02}"), noise(8_000, number))).collect();
        content.extend(
            (0..4).map(|number| (format!("/t{number:02}"), format!("{number} ").repeat(2_000).into_bytes())),
        );
        content.insert("/large".to_owned(), noise(200_000, 99));
        let files: Vec<_> = content.iter().map(|(name, bytes)| (&name[1..], bytes.as_slice())).collect();
        let source = matrix.place.directory("source", &files);
        let first =
            own.import_directory(&source, &ImportOptions { tags: tags(&["first"]), ..Default::default() });
        matrix.images.insert(first.unwrap().image, ("p", content.clone()));
        store.wait_for_upkeep();
        let copy = matrix.place.path("copy");
        let image = own.find(&parse("first")).unwrap();
        image.check_out(&copy, CheckoutOptions::default()).unwrap();
        store.wait_for_upkeep();
        copy_tree(&root, &matrix.place.path("older"));

        let commit = |own: &Project, name: &str, bytes: Vec<u8>, content: &mut Content| {
            fs::write(copy.join(name), &bytes).unwrap();
            content.insert(format!("/{name}"), bytes);
            let options = CommitOptions { tags: tags(&[name]), ..CommitOptions::default() };
            own.commit(&copy, &options).unwrap().image
        };
        for (name, seed) in [("second", 7), ("third", 8)] {
            let image = commit(&own, name, noise(40_000, seed), &mut content);
            matrix.images.insert(image, ("p", content.clone()));
            store.wait_for_upkeep();
        }
        let shared =
            public.import_directory(&copy, &ImportOptions { tags: tags(&["os"]), ..Default::default() });
        matrix.images.insert(shared.unwrap().image, ("public", content));
        own.tag(&parse("os"), &tags(&["adopted"])).unwrap();
        store.wait_for_upkeep();
        store.dump_catalog().unwrap();
        assert!(store.verify().unwrap().is_sound());
        drop(store);
        copy_tree(&root, &matrix.place.path("sound"));
        matrix
    }

    fn root(&self) -> PathBuf {
        self.place.path("store")
    }

    /// The store's files, relative to it, that begin so.
    fn files(&self, prefix: &str) -> Vec<String> {
        let sound = self.place.path("sound");
        let folders = ["", "packs", "segments", "directories"].map(|folder| sound.join(folder));
        let paths = folders
            .iter()
            .flat_map(|folder| fs::read_dir(folder).unwrap())
            .map(|entry| entry.unwrap().path());
        let names = paths
            .filter(|path| path.is_file())
            .map(|path| path.strip_prefix(&sound).unwrap().to_str().unwrap().to_owned());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
        names.sort();
        assert!(!names.is_empty(), "{prefix}");
        names
    }

    fn bytes(&self, file: &str) -> Vec<u8> {
        fs::read(self.place.path("sound").join(file)).unwrap()
    }

    fn restore(&self) {
        copy_tree(&self.place.path("sound"), &self.root());
    }

    /// Damages a file at a place, and says whether that changed it.
    fn damage(&self, file: &str, change: Change, at: usize) -> bool {
        let (path, sound) = (self.root().join(file), self.bytes(file));
        let mut damaged = sound.clone();
        match change {
            Change::FlipBit => damaged[at] ^= 1 << (at % 8),
            Change::Zero => damaged[at..].iter_mut().take(512).for_each(|byte| *byte = 0),
            Change::Truncate => damaged.truncate(at),
            Change::Delete => fs::remove_file(&path).unwrap(),
            Change::Older => match fs::read(self.place.path("older").join(file)) {
                Ok(older) => damaged = older,
                Err(_) => return false,
            },
        }
        if change != Change::Delete {
            fs::write(&path, &damaged).unwrap();
        }
        change == Change::Delete || damaged != sound
    }

    /// Reads all of an image: as it was, or an error.
    fn read(store: &Store, id: ImageId, (project, content): &(&'static str, Content)) -> Result<()> {
        let image = store.project(&parse(project))?.find(&id.into())?;
        for (path, bytes) in content {
            assert!(read(&image, path)? == *bytes, "{path} of {id} reads back as something else");
        }
        assert_eq!(image.info().entries, content.len() as u64 + 1);
        Ok(())
    }

    /// One case: damages a file, and looks at what becomes of it.
    fn case(&mut self, file: &str, change: Change, at: usize) -> Option<RepairReport> {
        self.restore();
        let is_changed = self.damage(file, change, at);
        let case = format!("{change:?} {file} at {at} of {}", self.bytes(file).len());
        is_changed.then(|| self.look(&case))
    }

    /// What verification, readers and repair make of the store as it is.
    fn look(&mut self, case: &str) -> RepairReport {
        self.cases += 1;
        let verified = options().open(self.root()).and_then(|store| store.verify());
        let is_told = match &verified {
            Ok(report) => !report.is_sound(),
            Err(error) => {
                assert!(error.is_corrupt(), "{case}: {error:?}");
                true
            }
        };
        let mut unreadable = 0;
        for (id, content) in &self.images {
            let Err(error) = options().open(self.root()).and_then(|store| Self::read(&store, *id, content))
            else {
                continue;
            };
            unreadable += 1;
            // A row that is gone without a trace is found by verification alone.
            let is_of_catalog = case.contains("catalog.redb") && Error::is_not_found(&error);
            assert!(error.is_corrupt() || is_of_catalog, "{case}: {error:?}");
        }
        assert!(
            is_told || unreadable == 0,
            "{case}: {unreadable} images can't be read, and verification is silent"
        );
        self.harmless += u32::from(!is_told);

        let report = options().repair(self.root(), RepairOptions::default());
        let report = report.unwrap_or_else(|error| panic!("{case}: {error:?}"));
        let store = options().open(self.root()).unwrap();
        let after = store.verify().unwrap();
        assert!(after.is_sound(), "{case}: {after:?} after {report:?}");
        for (id, content) in &self.images {
            let is_lost = report.damaged_images.iter().any(|image| image.image == *id);
            match Self::read(&store, *id, content) {
                Ok(()) => assert!(!is_lost, "{case}: {id} is there though it is said to be lost"),
                Err(error) => assert!(is_lost && error.is_not_found(), "{case}: {id}: {error}, {report:?}"),
            }
        }
        assert!(is_told || report.damaged_images.is_empty(), "{case}: {report:?}");
        for left in &report.salvaged {
            let damaged = report.damaged_images.iter().find(|image| image.image == left.of).unwrap();
            let (_, content) = &self.images[&left.of];
            let image = store.project(&parse(&left.project)).unwrap().find(&left.image.into()).unwrap();
            let sound = content.iter().filter(|(path, bytes)| match read(&image, path) {
                Ok(found) => {
                    assert!(found == **bytes, "{case}: {path} of what is left of {}", left.of);
                    true
                }
                Err(error) => {
                    assert!(error.is_not_found(), "{case}: {error}");
                    false
                }
            });
            // The root directory is made up where it is lost.
            let lost = content.len() as u64 - sound.count() as u64;
            assert!([lost, lost + 1].contains(&damaged.lost_paths), "{case}: {lost} of {damaged:?}");
        }
        report
    }

    /// All changes of a file, at these places.
    fn file(&mut self, file: &str, places: &[usize]) -> Vec<RepairReport> {
        let at_places = AT_PLACES.into_iter().flat_map(|change| places.iter().map(move |at| (change, *at)));
        let cases: Vec<_> = at_places.chain(OF_FILES.map(|change| (change, 0))).collect();
        cases.into_iter().filter_map(|(change, at)| self.case(file, change, at)).collect()
    }
}

/// Places that lie evenly in so many bytes.
fn spread(bytes: usize, count: usize) -> Vec<usize> {
    (0..count).map(|number| number * (bytes - 1) / count.max(1)).collect()
}

#[test]
fn of_packs() {
    let mut matrix = Matrix::new();
    let packs = matrix.files("packs/");
    assert!(packs.len() > 1, "{packs:?}");
    for pack in &packs {
        let bytes = matrix.bytes(pack);
        let frames: Vec<_> = bytes.windows(4).enumerate().filter(|(_, word)| word == b"LSFR").collect();
        let first = frames.first().unwrap().0;
        let last = frames.last().unwrap().0;
        // The pack's head; a frame's head, table and payload, of the first and of the last; the end.
        let places = vec![0, 20, first + 1, first + 46, first + 90, last + 30, last + 60, bytes.len() - 1];
        for report in matrix.file(pack, &places) {
            assert_eq!(report.catalog, layerstone::CatalogState::Whole);
        }
    }
    assert_eq!(matrix.harmless, 0, "of {}", matrix.cases);
}

#[test]
fn of_segments() {
    let mut matrix = Matrix::new();
    for segment in matrix.files("segments/") {
        let bytes = matrix.bytes(&segment).len();
        // The head, a bucket, and then frames and rows.
        let places = [0, 3, 60, 130, bytes / 2, bytes - 20, bytes - 1];
        for report in matrix.file(&segment, &places) {
            assert!(report.damaged_images.is_empty() && report.restored.is_empty(), "{report:?}");
        }
    }
    assert_eq!(matrix.harmless, 0, "of {}", matrix.cases);
}

#[test]
fn of_the_catalog() {
    let mut matrix = Matrix::new();
    let bytes = matrix.bytes("catalog.redb");
    let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    let mut places = spread(used, 24);
    places.extend([1, 70, 130]);
    for report in matrix.file("catalog.redb", &places) {
        // The dump names all images; none is lost, and none needs to be found in packs.
        assert!(report.damaged_images.is_empty(), "{report:?}");
    }
    // Much of a catalog is free.
    assert!(matrix.harmless * 4 < matrix.cases * 3, "{} of {}", matrix.harmless, matrix.cases);
    let told = matrix.case("catalog.redb", Change::Older, 0).unwrap();
    assert_eq!(told.catalog, layerstone::CatalogState::Damaged, "it is older than its dump");
}

#[test]
fn of_all_else() {
    let mut matrix = Matrix::new();
    for file in ["format", "catalog.dump"] {
        let bytes = matrix.bytes(file).len();
        let before = (matrix.harmless, matrix.cases);
        matrix.file(file, &spread(bytes, 3));
        // A dump that is older than the catalog is what any dump is.
        let older = u32::from(file == "catalog.dump");
        assert_eq!(matrix.harmless - before.0, older, "{file}: {} cases", matrix.cases - before.1);
    }
    for state in matrix.files("directories/") {
        let bytes = matrix.bytes(&state).len();
        let before = (matrix.harmless, matrix.cases);
        let lost = matrix.file(&state, &spread(bytes, 2)).iter().filter(|report| report.has_losses()).count();
        let cases = (matrix.cases - before.1) as usize;
        // That of a directory that was imported saves time, and is no loss.
        assert!(lost == 0 || lost == cases, "{state}: {lost} of {cases}");
        assert_eq!((matrix.harmless - before.0) as usize, cases - lost);
    }
}

/// Several files at once, at any place. Without the catalog and the dump, nothing would know the projects' names.
#[test]
fn of_several_files() {
    const CASES: u64 = 25;
    let mut matrix = Matrix::new();
    let files = matrix.files("");
    // And a flipped bit in its number makes the format another one, which is refused.
    let left_out = ["catalog.dump", "lock", "format"];
    let files: Vec<_> = files.into_iter().filter(|file| !left_out.contains(&file.as_str())).collect();
    for seed in 0..CASES {
        matrix.restore();
        let mut random = noise(200, 1_000 + seed).into_iter().map(usize::from);
        let mut number = |below: usize| random.by_ref().take(3).fold(0, |all, byte| all << 8 | byte) % below;
        let mut case = format!("case {seed}");
        for _ in 0..=number(4) {
            let file = &files[number(files.len())];
            let change = [Change::FlipBit, Change::Zero, Change::Truncate, Change::Delete][number(4)];
            let at = number(matrix.bytes(file).len());
            case = format!("{case}, {change:?} {file} at {at}");
            if matrix.root().join(file).exists() {
                matrix.damage(file, change, at);
            }
        }
        matrix.look(&case);
    }
}
