//! Directories that others use while they are imported or committed: files that grow, are replaced or removed, and files
//! whose size is not what their file system says.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use layerstone::{
    Changing, CheckoutOptions, CommitOptions, ErrorKind, Image, ImageRef, ImportOptions, OverlayMarks,
    Project, Store, TreePath, WorkspaceOptions, WriteReport,
};

use crate::given::{Place, project, read, reference, tags};
use crate::system;

fn given() -> (Place, Store, Project) {
    let place = Place::new();
    let store = Store::open(place.path("store")).unwrap();
    let project = project(&store, "p");
    (place, store, project)
}

fn find(project: &Project, report: &WriteReport) -> Image {
    project.find(&report.image.into()).unwrap()
}

fn keep() -> ImportOptions {
    ImportOptions { changing: Changing::Keep, ..ImportOptions::default() }
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// Says that it is over, also where the test has failed.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `disturb` again and again on another thread while `work` is done once.
fn beside<T>(disturb: impl Fn(u64) + Sync, work: impl FnOnce() -> T) -> T {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0;
            while !is_done.load(Ordering::Relaxed) {
                disturb(turn);
                turn += 1;
            }
        });
        let _done = Done(&is_done);
        work()
    })
}

/// A log of many lines to which one more is written all the time.
fn log(directory: &Path) -> impl Fn(u64) + Sync + use<> {
    let log = directory.join("log");
    fs::write(&log, "line\n".repeat(1 << 20)).unwrap();
    move |_| fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(b"line\n").unwrap()
}

/// Fails unless the image has a log of whole lines, as many as there were at some time.
fn assert_is_log(image: &Image) {
    let log = read(image, "/log").unwrap();
    assert!(log.len() >= 5 << 20, "{} bytes", log.len());
    assert!(log.chunks(5).all(|line| line == b"line\n"), "the first bytes of the log and nothing else");
}

#[test]
fn a_growing_log_is_refused_with_advice_or_kept_as_it_was_listed() {
    let (place, store, project) = given();
    let source = place.directory("source", &[("still", b"still")]);
    let grow = log(&source);
    let error = beside(&grow, || project.import_directory(&source, &ImportOptions::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(
        error.to_string().contains("source/log") && error.to_string().contains("`Changing::Keep`"),
        "{error}"
    );
    assert_eq!(error.remedy(), Some(layerstone::Remedy::ExcludeOrKeepChanging));

    let report = beside(&grow, || project.import_directory(&source, &keep())).unwrap();
    assert_eq!(report.source.changed, [path("log")]);
    assert_is_log(&find(&project, &report));
    // What was kept is not trusted: the next import reads it.
    let again = project.import_directory(&source, &ImportOptions::default()).unwrap();
    let size = fs::metadata(source.join("log")).unwrap().len();
    assert_eq!(read(&find(&project, &again), "/log").unwrap().len() as u64, size);
    assert_eq!(again.source.changed, []);
    assert!(store.verify().unwrap().faults.is_empty());
}

#[test]
fn every_commit_of_a_directory_keeps_a_growing_log_where_asked() {
    let (place, _, project) = given();
    let source = place.directory("source", &[("still", b"still")]);
    let options = ImportOptions { tags: tags(&["base"]), ..ImportOptions::default() };
    let base = project.import_directory(&source, &options).unwrap();
    let options = CommitOptions { changing: Changing::Keep, ..CommitOptions::default() };

    let checkout = place.path("checkout");
    find(&project, &base).check_out(&checkout, CheckoutOptions::default()).unwrap();
    let grow = log(&checkout);
    let error = beside(&grow, || project.commit(&checkout, &CommitOptions::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let report = beside(&grow, || project.commit(&checkout, &options)).unwrap();
    assert_eq!(report.source.changed, [path("log")]);
    assert_is_log(&find(&project, &report));

    let upper = place.directory("upper", &[]);
    let grow = log(&upper);
    let base: ImageRef = reference("base");
    let commit = || project.commit_upper(&upper, &base, OverlayMarks::Trusted, &options);
    let report = beside(&grow, commit).unwrap();
    assert_eq!(report.source.changed, [path("log")]);
    assert_is_log(&find(&project, &report));

    let workspace = WorkspaceOptions { full_copy: true, ..WorkspaceOptions::default() };
    let workspace = project.find(&base).unwrap().create_workspace(&workspace).unwrap();
    let grow = log(&workspace.path().unwrap());
    let report = beside(&grow, || workspace.commit(&options)).unwrap();
    assert_eq!(report.source.changed, [path("log")]);
    assert_is_log(&find(&project, &report));
}

#[test]
fn a_shrinking_file_is_kept_as_far_as_it_is_there() {
    let (place, store, project) = given();
    let source = place.directory("source", &[("still", b"still")]);
    let file = source.join("restless");
    let sizes = [5_u64 << 20, 3 << 20, 7, 0];
    let disturb = |turn: u64| {
        let file = fs::File::create(&file).unwrap();
        file.set_len(sizes[usize::try_from(turn).unwrap() % sizes.len()]).unwrap();
    };
    disturb(0);
    for _ in 0..50 {
        let report = beside(disturb, || project.import_directory(&source, &keep())).unwrap();
        let image = find(&project, &report);
        assert!(read(&image, "/restless").unwrap().len() as u64 <= sizes[0]);
        assert_eq!(read(&image, "/still").unwrap(), b"still");
    }
    assert!(store.verify().unwrap().faults.is_empty());
}

#[test]
fn a_file_that_is_replaced_whole_is_read_whole() {
    let (place, _, project) = given();
    let texts = [b"before ".repeat(9_000), b"after".repeat(30_000)];
    let source = place.directory("source", &[("config", &texts[0])]);
    let replace = |turn: u64| {
        let new = source.join(".config.new");
        fs::write(&new, &texts[usize::try_from(turn).unwrap() % 2]).unwrap();
        fs::rename(new, source.join("config")).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    };
    for _ in 0..30 {
        let report =
            beside(replace, || project.import_directory(&source, &ImportOptions::default())).unwrap();
        let config = read(&find(&project, &report), "/config").unwrap();
        assert!(texts.contains(&config), "{} bytes", config.len());
    }
}

#[test]
fn what_comes_and_goes_leaves_the_rest_whole() {
    let (place, store, project) = given();
    let source = place.directory("source", &[("still", b"still"), ("z/still", b"still")]);
    // Files, directories, links and hard links take each other's names.
    let disturb = |turn: u64| {
        let at = |name: &str| source.join(name);
        let name = at(["a", "m", "z/x"][usize::try_from(turn / 5).unwrap() % 3]);
        let _ = fs::remove_dir(&name).or_else(|_| fs::remove_file(&name));
        match turn % 5 {
            0 => fs::write(&name, "file").unwrap(),
            1 => fs::create_dir(&name).unwrap(),
            2 => std::os::unix::fs::symlink("still", &name).unwrap(),
            3 => fs::hard_link(at("still"), &name).unwrap(),
            _ => {}
        }
    };
    let options = [ImportOptions::default(), keep()];
    let mut kept = 0;
    for turn in 0..200 {
        let options = &options[turn % 2];
        match beside(disturb, || project.import_directory(&source, options)) {
            Ok(report) => {
                kept += 1;
                let image = find(&project, &report);
                assert_eq!(read(&image, "/still").unwrap(), b"still");
                assert_eq!(read(&image, "/z/still").unwrap(), b"still");
            }
            Err(error) => {
                assert_eq!(
                    (error.kind(), options.changing),
                    (ErrorKind::Conflict, Changing::Refuse),
                    "{error}"
                );
            }
        }
    }
    assert!(kept >= 100, "all that keep what changes");
    assert!(store.verify().unwrap().faults.is_empty());
}

#[test]
fn hard_links_that_are_replaced_do_not_mix_contents() {
    let (place, store, project) = given();
    let names: Vec<_> = (0..40).map(|number| format!("{number:02}")).collect();
    let source = place.directory("source", &[]);
    for name in &names {
        fs::create_dir(source.join(name)).unwrap();
        fs::write(source.join(name).join("a"), name).unwrap();
        fs::hard_link(source.join(name).join("a"), source.join(name).join("b")).unwrap();
    }
    let disturb = |turn: u64| {
        let folder = source.join(&names[usize::try_from(turn).unwrap() * 7 % names.len()]);
        let name = folder.join(["a", "b"][usize::try_from(turn / 40).unwrap() % 2]);
        fs::write(folder.join("new"), format!("new {}", folder.file_name().unwrap().display())).unwrap();
        fs::rename(folder.join("new"), name).unwrap();
    };
    for _ in 0..20 {
        let report = beside(disturb, || project.import_directory(&source, &keep())).unwrap();
        let image = find(&project, &report);
        for name in &names {
            for file in ["a", "b"] {
                let text = String::from_utf8(read(&image, &format!("/{name}/{file}")).unwrap()).unwrap();
                assert_eq!(text.strip_prefix("new ").unwrap_or(&text), name);
            }
        }
    }
    assert!(store.verify().unwrap().faults.is_empty());
}

#[test]
fn a_file_without_its_listed_size_is_refused_for_that_or_kept_as_it_reads() {
    let (_place, _, project) = given();
    // Files of procfs have no size.
    let source = Path::new("/proc/sys/kernel/random");
    let error = project.import_directory(source, &ImportOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let text = error.to_string();
    assert!(text.contains("does not have the 0 bytes"), "{text}");
    assert!(text.contains("`ImportOptions::exclude`") && text.contains("`Changing::Keep`"), "{text}");

    let report = project.import_directory(source, &keep()).unwrap();
    assert!(report.source.changed.contains(&path("boot_id")), "{report:?}");
    let boot = fs::read(source.join("boot_id")).unwrap();
    assert_eq!(read(&find(&project, &report), "/boot_id").unwrap(), boot);
}

#[test]
fn the_command_names_each_file_that_it_kept_in_part() {
    let cli = crate::cli::Cli::new();
    let (code, error) = cli.fails(&["import", "/proc/sys/kernel/random"]);
    assert!(code == 7 && error.contains("--changing keep"), "{code}: {error}");
    let output = cli.run(&["import", "/proc/sys/kernel/random", "--changing", "keep", "--tag", "random"]);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{notes}");
    let begin = "/boot_id: the image has what could be read of it";
    assert_eq!(notes.lines().filter(|line| line.starts_with(begin)).count(), 1, "{notes}");
    assert_eq!(cli.ok(&["cat", "random", "/boot_id"]).len(), 37);

    let json = cli.run(&["import", "/proc/sys/kernel/random", "--changing", "keep", "--json"]);
    assert_eq!(String::from_utf8(json.stderr).unwrap(), "", "the object has it");
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(
        report["source"]["changed"].as_array().unwrap().contains(&serde_json::json!({ "path": "/boot_id" })),
        "{report}"
    );
}

#[test]
fn a_file_that_is_only_touched_is_refused_with_advice_or_kept_and_named() {
    let (place, _, project) = given();
    let source = place.directory("source", &[("touched", &[7; 3 << 20])]);
    let touch = |turn: u64| {
        crate::given::set_mtime(&source.join("touched"), 1_000_000_000 + turn.cast_signed(), 0);
    };
    beside(touch, || {
        let error = project.import_directory(&source, &ImportOptions::default()).unwrap_err();
        assert!(error.is_conflict() && error.to_string().contains("`Changing::Keep`"), "{error}");
        let report = project.import_directory(&source, &keep()).unwrap();
        assert_eq!(report.source.changed, [path("/touched")]);
        assert_eq!(read(&find(&project, &report), "/touched").unwrap(), [7; 3 << 20]);
    });
}

#[test]
fn what_is_written_through_an_open_mapping_is_in_the_next_image() {
    let (place, _store, project) = given();
    let examined = write_through_mappings(&project, &place.path(""));
    assert_eq!(examined, [0, 0], "nobody can write to them any more");
}

#[test]
fn what_is_written_through_an_open_mapping_of_an_overlay_is_in_the_next_image() {
    if !system::is_on() {
        return;
    }
    let (place, _store, project) = given();
    for name in ["lower", "upper", "scratch", "merged"] {
        fs::create_dir(place.path(name)).unwrap();
    }
    let at = |name: &str| place.path(name).display().to_string();
    let layers = format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("scratch"));
    let merged = place.path("merged");
    let words = ["-t", "overlay", "overlay", "-o", &layers].map(Path::new);
    system::program("mount", &[&words[..], &[&merged]].concat());
    let examined =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| write_through_mappings(&project, &merged)));
    system::unmount(&merged);
    assert_eq!(examined.unwrap(), [1, 1], "who has them mapped is not known, until they are an hour old");
}

/// Writes through mappings of a file that was imported and of one that was checked out, below `root`. Gives how many paths an
/// import and a commit read once all are closed.
#[expect(unsafe_code, reason = "only these tests have the files")]
fn write_through_mappings(project: &Project, root: &Path) -> [u64; 2] {
    let (source, work) = (root.join("source"), root.join("work"));
    crate::given::write_files(&source, &[("map", &[b'-'; 8192]), ("still", b"still")]);
    let import = || project.import_directory(&source, &ImportOptions::default()).unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let base = find(project, &import());
    base.check_out(&work, CheckoutOptions::default()).unwrap();
    let commit = || project.commit(&work, &CommitOptions::default()).unwrap();
    // The root's own time is from when it appeared.
    std::thread::sleep(Duration::from_millis(100));
    commit();
    let file = |directory: &Path| {
        let path = directory.join("map");
        fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
    };
    // SAFETY: nobody shortens the files.
    let mut maps =
        [&source, &work].map(|directory| unsafe { memmap2::MmapMut::map_mut(&file(directory)).unwrap() });
    for map in &mut maps {
        map[0] = b'A';
    }
    std::thread::sleep(Duration::from_secs(3));
    for (report, examined) in [(import(), 1), (commit(), 1)] {
        assert_eq!(report.examined, examined, "{report:?}");
        assert_eq!(read(&find(project, &report), "/map").unwrap()[0], b'A');
    }
    // The page is not written back yet, so this changes neither times nor size.
    for map in &mut maps {
        map[0] = b'B';
    }
    drop(maps);
    for report in [import(), commit()] {
        assert_eq!(read(&find(project, &report), "/map").unwrap()[0], b'B');
    }
    std::thread::sleep(Duration::from_secs(3));
    import();
    commit();
    [import().examined, commit().examined]
}
