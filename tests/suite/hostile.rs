//! Hostile tars, row by row: an error that names the entry, or the outcome that is right, and after a refusal nothing.
//!
//! What each header may hold is tested beside the reader (`src/archive`); here it is what becomes of a store.

use std::fs;
use std::time::Duration;

use layerstone::{
    CheckoutOptions, CommitOptions, EntryInfo, EntryKind, Error, ErrorKind, GcOptions, Image, ImportLimits,
    ImportOptions, ListOptions, Project, Store, Subject, TreePath,
};

use crate::given::{Place, project, read, tags, write_files};
use crate::raw_tar::{Header, archive, directory, file, hard_link, long, pax, symlink};

struct Given {
    place: Place,
    store: Store,
    project: Project,
}

impl Given {
    fn new() -> Self {
        let place = Place::new();
        let store = Store::open(place.path("store")).unwrap();
        let project = project(&store, "p");
        Self { place, store, project }
    }

    fn image(&self, parts: &[Vec<u8>]) -> Image {
        let made = self.project.import_tar(&*archive(parts), &ImportOptions::default()).unwrap();
        self.project.find(&made.image.into()).unwrap()
    }

    /// Refused, and there is nothing afterwards: no image, no tag, no byte in a pack, no fault.
    #[track_caller]
    fn refused(&self, parts: &[Vec<u8>], kind: ErrorKind, message: &str) -> Error {
        // What is sound in front is stored, or at least on its way, when the refusal comes.
        let sound = file("before", crate::roundtrip::noise(3 << 20, 1));
        let tar = archive(&[&[sound], parts].concat());
        self.refused_tar(&tar, &ImportOptions::default(), kind, message)
    }

    #[track_caller]
    fn refused_tar(&self, tar: &[u8], options: &ImportOptions, kind: ErrorKind, message: &str) -> Error {
        let options = ImportOptions { tags: tags(&["bad"]), ..options.clone() };
        let error = self.project.import_tar(tar, &options).expect_err("was taken");
        assert!(error.to_string().contains(message), "{error} does not say '{message}'");
        assert_eq!(error.kind(), kind, "{error}");
        self.is_empty();
        error
    }

    /// Nothing was ever published.
    #[track_caller]
    fn is_empty(&self) {
        assert!(self.project.images(&ListOptions::default()).unwrap().images.is_empty());
        assert!(self.project.resolve(&"bad".parse().unwrap()).unwrap_err().is_not_found());
        self.store.collect_garbage(&GcOptions { full: true, ..GcOptions::default() }).unwrap();
        let packs = fs::read_dir(self.place.path("store/packs")).unwrap();
        let bytes: u64 = packs.map(|pack| pack.unwrap().metadata().unwrap().len()).sum();
        assert_eq!(bytes, 0, "bytes are left in packs");
        let report = self.store.verify().unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
    }

    /// Refused as malformed, naming an entry.
    #[track_caller]
    fn malformed(&self, parts: &[Vec<u8>], message: &str) {
        let error = self.refused(parts, ErrorKind::Invalid, message);
        assert!(matches!(error.subject(), Subject::ArchiveEntry(_)), "{error:?}");
    }
}

fn list(image: &Image, path: &str) -> Vec<(String, EntryKind)> {
    entries(image, path).into_iter().map(|entry| (entry.path.to_string(), entry.kind)).collect()
}

fn entries(image: &Image, path: &str) -> Vec<EntryInfo> {
    image.list(&TreePath::parse(path.as_bytes()).unwrap()).unwrap()
}

#[test]
fn names_that_lead_out() {
    let given = Given::new();
    for name in ["../x", "a/../../x", "/../x", "a/.."] {
        given.malformed(&[file(name, "x")], "'..'");
        given.malformed(&[pax(&[("path", name.as_bytes())]), file("e", "x")], "'..'");
        given.malformed(&[hard_link("e", name)], "'..'");
    }
    given.malformed(&[symlink("./", "/etc")], "must be a directory");
    let image = given.image(&[file("/etc/x", "absolute"), file("./y", "relative")]);
    assert_eq!(
        (read(&image, "etc/x").unwrap(), read(&image, "y").unwrap()),
        (b"absolute".into(), b"relative".into())
    );
}

#[test]
fn links_are_followed_inside_the_tree_alone() {
    let given = Given::new();
    let outside = given.place.directory("outside", &[]);
    let target = outside.to_str().unwrap();
    given.malformed(&[symlink("link", target), file("link/child", "x")], "where nothing is");
    given.malformed(&[symlink("link", "../outside"), file("link/child", "x")], "out of the tree");
    given.malformed(&[symlink("link", "link"), file("link/child", "x")], "more than 40 links");
    given.malformed(&[file("link/child", "x"), symlink("link", target)], "already has /link/child");
    // The image has a directory of that name, too.
    let inside = target.trim_start_matches('/').to_owned();
    let image = given.image(&[
        directory(&inside),
        symlink("link", target),
        file("link/child", "x"),
        symlink("kept", target),
        directory("kept"),
        symlink("replaced", "nowhere"),
        directory("replaced"),
        symlink("last", target),
    ]);
    assert_eq!(read(&image, &format!("{inside}/child")).unwrap(), b"x");
    let kinds = list(&image, "/").into_iter().filter(|(path, _)| !target.starts_with(path.as_str()));
    let links = ["/kept", "/last", "/link"].map(|path| (path.to_owned(), EntryKind::Symlink));
    let expected = links.into_iter().chain([("/replaced".to_owned(), EntryKind::Directory)]);
    assert_eq!(kinds.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    image.check_out(given.place.path("copy"), CheckoutOptions::default()).unwrap();
    assert!(given.place.path(&format!("copy/{inside}/child")).is_file());
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0, "nothing was written through it");
}

#[test]
fn hard_links_stay_inside() {
    let given = Given::new();
    let cases: [(&[Vec<u8>], &str); 7] = [
        (&[hard_link("e", "../../etc/passwd")], "'..'"),
        (&[hard_link("e", "/etc/passwd")], "no earlier entry"),
        (&[symlink("link", "/etc"), hard_link("e", "link/passwd")], "to /etc, where nothing is"),
        (&[symlink("link", "../etc"), hard_link("e", "link/passwd")], "out of the tree"),
        (&[hard_link("e", "e")], "no earlier entry"),
        (&[hard_link("e", "later"), file("later", "x")], "no earlier entry"),
        (&[directory("d"), hard_link("e", "d")], "other than a directory"),
    ];
    for (parts, message) in cases {
        given.malformed(parts, message);
    }
    let image = given.image(&[file("a", "one"), hard_link("b", "/a"), file("a", "two")]);
    assert_eq!((read(&image, "a").unwrap(), read(&image, "b").unwrap()), (b"two".into(), b"one".into()));
}

#[test]
fn long_and_deep_names() {
    let given = Given::new();
    given.malformed(&[long(b'L', [b'x'; 256]), file("e", "")], "255 bytes");
    given.malformed(&[long(b'L', "x/".repeat(2049)), file("e", "")], "4095 bytes");
    given.malformed(&[pax(&[("path", "x/".repeat(100_000).as_bytes())]), file("e", "")], "4095 bytes");
    given.malformed(&[long(b'K', "x".repeat(4096)), symlink("e", "")], "4095 bytes");
    let deep = "d/".repeat(2047) + "f";
    let image = given.image(&[long(b'L', &deep), file("e", "at the bottom")]);
    assert_eq!(read(&image, &deep).unwrap(), b"at the bottom");
}

#[test]
fn later_entries_win() {
    let given = Given::new();
    let image = given.image(&[
        file("twice", "first"),
        file("twice", "second"),
        file("turned", "file"),
        directory("turned"),
        file("turned/child", "child"),
        directory("gone"),
        file("gone/child", "child"),
        file("gone", "file"),
        file("through", "file"),
        file("through/child", "child"),
    ]);
    assert_eq!(read(&image, "twice").unwrap(), b"second");
    assert_eq!(read(&image, "turned/child").unwrap(), b"child");
    assert_eq!(read(&image, "gone").unwrap(), b"file");
    assert_eq!(read(&image, "through/child").unwrap(), b"child");
}

#[test]
fn headers_that_disagree() {
    let given = Given::new();
    // The entry that the smaller size would show is in the body of the one that has the larger.
    let hidden = file("hidden", "x");
    let size = hidden.len().to_string();
    let smuggled =
        [pax(&[("size", size.as_bytes())]), Header::new(b'0', "shown").size(0).bytes(), hidden.clone()];
    let image = given.image(&smuggled);
    assert_eq!(list(&image, "/"), [("/shown".to_owned(), EntryKind::File)]);
    let named = [pax(&[("path", b"x")]), long(b'L', "long"), file("short", "x")];
    assert_eq!(list(&given.image(&named), "/"), [("/x".to_owned(), EntryKind::File)]);
    given.project.remove(&image.info().id.into(), true).unwrap();
    given.project.remove(&given.image(&named).info().id.into(), true).unwrap();
    drop(image);

    given.malformed(&[Header::new(b'x', "h").with("7 a=b\n"), file("e", "")], "PAX header is malformed");
    given.malformed(&[Header::new(b'x', "h").with("99999999999999999999 a=b\n"), file("e", "")], "malformed");
    given.malformed(&[Header::new(b'2', "e").link("t").size(512).bytes(), vec![0; 512]], "must be 0");
    for flag in *b"xgLK" {
        given.refused(
            &[Header::new(flag, "e").size(512 << 20).bytes()],
            ErrorKind::QuotaExceeded,
            "header_bytes_max",
        );
    }
    let flood = vec![pax(&[("path", b"p")]); 17].concat();
    given.refused(&[flood, file("e", "")], ErrorKind::QuotaExceeded, "pending_headers_max");
}

#[test]
fn numbers_out_of_range() {
    let given = Given::new();
    let header = |offset, width, value| Header::new(b'0', "e").binary(offset, width, value).bytes();
    for (offset, width, value, what) in [
        (124, 12, -1, "size"),
        (124, 12, 1 << 63, "size"),
        (108, 8, 1 << 32, "uid"),
        (116, 8, -1, "gid"),
        (136, 12, 1 << 63, "mtime"),
        (136, 12, -(1 << 63) - 1, "mtime"),
    ] {
        given.malformed(&[header(offset, width, value)], &format!("{what} is out of range"));
    }
    let image = given.image(&[
        header(136, 12, i64::MIN.into()),
        Header::new(b'0', "f").binary(136, 12, i64::MAX.into()).bytes(),
    ]);
    let seconds: Vec<_> = entries(&image, "/").iter().map(|entry| entry.mtime_seconds).collect();
    assert_eq!(seconds, [i64::MIN, i64::MAX]);
}

#[test]
fn ends_and_cuts() {
    let given = Given::new();
    let whole = archive(&[file("first", [7; 700]), file("e", [8; 700])]);
    for len in [512 + 1024 + 512 + 600, 512 + 1024 + 100, 512 + 10] {
        given.refused_tar(&whole[..len], &ImportOptions::default(), ErrorKind::Invalid, "cut short");
    }
    given.refused_tar(b"", &ImportOptions::default(), ErrorKind::Invalid, "is empty");
    given.refused_tar(&[b'j'; 2048], &ImportOptions::default(), ErrorKind::Invalid, "no tar archive");
    let gzip = gzip(&whole);
    given.refused_tar(&gzip[..gzip.len() - 9], &ImportOptions::default(), ErrorKind::Invalid, "gzip");
    given.refused_tar(&[&gzip[..], b"junk"].concat(), &ImportOptions::default(), ErrorKind::Invalid, "gzip");
    // End blocks may be missing, what follows them is not looked at, and gzip members are one stream.
    let imported = |tar: &[u8]| given.project.import_tar(tar, &ImportOptions::default()).unwrap();
    let bare = imported(&whole[..whole.len() - 1024]);
    assert_eq!((bare.entries, imported(&[&whole[..], b"junk"].concat()).entries), (3, 3));
    let (front, back) = whole.split_at(900);
    assert_eq!(imported(&[self::gzip(front), self::gzip(back)].concat()).image, imported(&whole).image);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::default());
    let mut compressed = Vec::new();
    std::io::Read::read_to_end(&mut encoder, &mut compressed).unwrap();
    compressed
}

#[test]
fn what_is_only_data_is_kept() {
    let given = Given::new();
    let device = Header::new(b'3', "device").octal(329, 8, 1).octal(337, 8, 3).bytes();
    let setuid = Header::new(b'0', "setuid").octal(100, 8, 0o6755).bytes();
    let marked = pax(&[
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/elsewhere"),
        ("SCHILY.xattr.security.capability", &[1; 20]),
    ]);
    let odd = pax(&[("path", b"new\nline\x1b[31m\xff")]);
    let image = given.image(&[
        device,
        setuid,
        Header::new(b'6', "fifo").bytes(),
        marked,
        file("marked", ""),
        odd,
        file("e", ""),
    ]);
    let found = entries(&image, "/");
    let names: Vec<_> = found.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["/device", "/fifo", "/marked", "/new\\nline\\u{1b}[31m\\xff", "/setuid"]);
    assert_eq!(found[4].mode, 0o6755);
    let copy = given.place.path("copy");
    let report = image.check_out(&copy, CheckoutOptions::default()).unwrap();
    assert!(!copy.join("device").exists(), "device nodes only where asked for");
    assert!(report.omitted > 0);
    assert!(given.place.path("copy/fifo").exists());
    drop(image);

    let given = Given::new();
    given.malformed(&[pax(&[("path", b"a\0b")]), file("e", "")], "zero byte");
    given.malformed(&[long(b'L', b"a\0b\0"), file("e", "")], "zero byte");
}

#[test]
fn budgets_are_options() {
    let given = Given::new();
    let tar = archive(&[file("a", [1; 600]), directory("d"), file("d/b", [1; 600])]);
    let limited = |limits| ImportOptions { limits, ..ImportOptions::default() };
    let default = ImportLimits::default();
    let few = |entries_max| limited(ImportLimits { entries_max, ..default.clone() });
    let small = |logical_bytes_max| limited(ImportLimits { logical_bytes_max, ..default.clone() });
    let hurried = |time| limited(ImportLimits { time_max: Some(time), ..default.clone() });
    let names = limited(ImportLimits { metadata_bytes_max: 3, ..default.clone() });
    let source = given.place.directory("source", &[("a", &[1; 600]), ("d/b", &[1; 600])]);
    fs::hard_link(source.join("a"), source.join("linked")).unwrap();

    given.refused_tar(&tar, &few(2), ErrorKind::QuotaExceeded, "entries_max");
    given.refused_tar(&tar, &small(1199), ErrorKind::QuotaExceeded, "logical_bytes_max");
    given.refused_tar(&tar, &hurried(Duration::ZERO), ErrorKind::TimedOut, "time_max");
    given.refused_tar(&tar, &names, ErrorKind::QuotaExceeded, "metadata_bytes_max");
    for (options, kind) in [
        (few(4), ErrorKind::QuotaExceeded),
        (small(1199), ErrorKind::QuotaExceeded),
        (hurried(Duration::ZERO), ErrorKind::TimedOut),
    ] {
        assert_eq!(given.project.import_directory(&source, &options).unwrap_err().kind(), kind);
        given.is_empty();
    }
    // Exactly so much is enough, and a file with two names counts once.
    let exact = |entries_max| {
        limited(ImportLimits {
            entries_max,
            logical_bytes_max: 1200,
            time_max: Some(Duration::MAX),
            ..default.clone()
        })
    };
    given.project.import_tar(&*tar, &exact(4)).unwrap();
    given.project.import_directory(&source, &exact(5)).unwrap();
    // Also where only changes are read.
    write_files(&source, &[("more", b"x")]);
    assert_eq!(
        given.project.import_directory(&source, &exact(6)).unwrap_err().kind(),
        ErrorKind::QuotaExceeded
    );
}

/// Whiteouts that make no sense, and those of lower layers only, in any order.
#[test]
fn whiteouts() {
    let given = Given::new();
    let base = given.image(&[directory("d"), file("d/old", "old"), file("gone", "x"), file("kept", "x")]);
    let apply = |parts: &[Vec<u8>]| base.edit().apply_tar(&*archive(parts)).commit(&CommitOptions::default());
    for name in [".wh.", ".wh..", ".wh...", "d/.wh...", "d/.wh."] {
        let error = apply(&[file("fine", "x"), file(name, "")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}: {error}");
    }
    let tricky = Header::new(b'3', ".wh.gone").bytes();
    for parts in [
        // What a whiteout is made of does not matter, and neither does the order.
        [directory(".wh.gone"), file("d/new", "new"), file("d/.wh..wh..opq", "")],
        [symlink(".wh.gone", "/etc"), file("d/.wh..wh..opq", ""), file("d/new", "new")],
        [tricky, file("d/new", "new"), file("d/.wh..wh..opq", "")],
    ] {
        let made = given.project.find(&apply(&parts).unwrap().image.into()).unwrap();
        assert_eq!(list(&made, "/d"), [("/d/new".to_owned(), EntryKind::File)]);
        assert!(read(&made, "gone").unwrap_err().is_not_found());
        assert_eq!(read(&made, "kept").unwrap(), b"x");
    }
    let both = apply(&[file("gone", "again"), file(".wh.gone", "")]).unwrap();
    assert_eq!(read(&given.project.find(&both.image.into()).unwrap(), "gone").unwrap(), b"again");
    assert_eq!(list(&base, "/d"), [("/d/old".to_owned(), EntryKind::File)]);
}

#[test]
fn budgets_on_the_command_line() {
    let cli = crate::cli::Cli::new();
    cli.tree();
    for (option, value, limit) in [
        ("--max-entries", "1", "--max-entries"),
        ("--max-bytes", "1", "--max-bytes"),
        ("--timeout", "0.000001", "--timeout"),
    ] {
        let (code, message) = cli.fails(&["import", "tree", option, value]);
        assert!(code == 8 && message.contains(&format!("raise it with {limit}")), "{code}: {message}");
        let output = cli.run(&["import", "tree", option, value, "--json"]);
        let failure: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert!(failure["message"].as_str().unwrap().contains(limit), "{failure}");
    }
    cli.ok(&["import", "tree", "--max-entries", "100", "--max-bytes", "1000000", "--timeout", "100.5"]);
    for words in
        [&["import", "tree", "--max-entries", "x"][..], &["images", "--limit=-1"], &["images", "-n", "9e9"]]
    {
        let (code, message) = cli.fails(words);
        assert!(code == 2 && message.contains("a whole number is expected"), "{code}: {message}");
    }
    for time in ["--timeout=-1", "--timeout=nan", "--timeout=1e12", "--timeout=soon"] {
        let (code, message) = cli.fails(&["import", "tree", time]);
        assert!(code == 2 && message.contains("a number of seconds is expected"), "{code}: {message}");
    }
    let (code, message) = cli.fails(&["import", "tree", "--timeout", "0"]);
    assert!(code == 2 && message.contains("more than 0 seconds"), "{code}: {message}");
}
