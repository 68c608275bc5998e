//! Archives that are small and ask for much: whether they are refused or taken, what a process needs for it stays bounded.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use layerstone::{CommitOptions, ErrorKind, ImportOptions, Project, Store};

use crate::given::Place;
use crate::raw_tar::{Header, archive, directory, file, long, pax};

/// The most anonymous memory that importing any of them may take.
const PEAK_BYTES: u64 = 200 << 20;
const TIME: Duration = Duration::from_secs(120);

const CHILD_BOMB: &str = "LAYERSTONE_BOMB_TEST";
const CHILD_FOLDER: &str = "LAYERSTONE_BOMB_TEST_FOLDER";

/// What is to become of a bomb.
#[derive(Clone, Copy)]
enum End {
    Refused(ErrorKind),
    Taken,
}

use End::{Refused, Taken};

const QUOTA: End = Refused(ErrorKind::QuotaExceeded);

/// Writes a bomb's bytes.
type WriteBomb = fn(&mut dyn Write) -> std::io::Result<()>;

/// Every bomb: its name, what becomes of it, and its bytes.
const BOMBS: [(&str, End, WriteBomb); 15] = [
    ("gzip", QUOTA, gzip),
    ("zstd", QUOTA, zstd),
    ("zstd-window", Refused(ErrorKind::Invalid), zstd_window),
    ("pax-header", QUOTA, |out| claimed_and_there(out, b'x')),
    ("long-name", QUOTA, |out| claimed_and_there(out, b'L')),
    ("sparse-size", QUOTA, sparse_size),
    ("sparse-pieces", QUOTA, sparse_pieces),
    ("xattrs-of-one", QUOTA, |out| out.write_all(&archive(&[xattrs(0, 1_025), file("e", "")]))),
    ("xattrs", Taken, |out| many_xattrs(out, 1_000)),
    ("too-many-xattrs", QUOTA, |out| many_xattrs(out, 3_000)),
    ("deep", Refused(ErrorKind::Invalid), |out| {
        out.write_all(&archive(&[pax(&[("path", "d/".repeat(100_000).as_bytes())]), file("e", "")]))
    }),
    ("many-deep", QUOTA, |out| many_deep(out, 4_000)),
    ("deep-enough", Taken, |out| many_deep(out, 10)),
    ("long-names", QUOTA, long_names),
    ("tiny", Taken, tiny),
];

fn gzip(out: &mut dyn Write) -> std::io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::best());
    same(&mut encoder, 80 << 20)?;
    encoder.finish().map(drop)
}

fn zstd(out: &mut dyn Write) -> std::io::Result<()> {
    let mut encoder = zstd::Encoder::new(out, 1)?;
    same(&mut encoder, 1 << 30)?;
    encoder.finish().map(drop)
}

/// A file of so many equal bytes.
fn same(out: &mut dyn Write, bytes: u64) -> std::io::Result<()> {
    out.write_all(&Header::new(b'0', "same").binary(124, 12, bytes.into()).bytes())?;
    std::io::copy(&mut std::io::repeat(b'a').take(bytes), out).map(drop)
}

/// A frame that says that 2 GiB must be kept to go on.
fn zstd_window(out: &mut dyn Write) -> std::io::Result<()> {
    out.write_all(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x03, 0x00, 0x10, 0x00])
}

/// A header of 512 MiB that prepares for an entry, and the beginning of its bytes.
fn claimed_and_there(out: &mut dyn Write, flag: u8) -> std::io::Result<()> {
    let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
    encoder.write_all(&Header::new(flag, "h").size(512 << 20).bytes())?;
    std::io::copy(&mut std::io::repeat(b'a').take(16 << 20), &mut encoder)?;
    encoder.finish().map(drop)
}

fn sparse_size(out: &mut dyn Write) -> std::io::Result<()> {
    let size = (1_u64 << 62).to_string();
    let records = [("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", b"0,0")];
    out.write_all(&archive(&[pax(&records), file("e", "")]))
}

/// A million pieces in the body's map.
fn sparse_pieces(out: &mut dyn Write) -> std::io::Result<()> {
    let pieces = (0..1_000_000).map(|piece| format!("{}\n512\n", piece * 1024));
    let body = format!("1000000\n{}", pieces.collect::<String>());
    let records =
        [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1024000000")];
    out.write_all(&archive(&[pax(&records), file("GNUSparseFile.0/e", body)]))
}

fn xattrs(entry: usize, count: usize) -> Vec<u8> {
    let names: Vec<_> = (0..count).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let value = entry.to_string();
    pax(&names.iter().map(|name| (name.as_str(), value.as_bytes())).collect::<Vec<_>>())
}

/// So many entries with a thousand attributes each.
fn many_xattrs(out: &mut dyn Write, entries: usize) -> std::io::Result<()> {
    (0..entries).try_for_each(|entry| {
        out.write_all(&xattrs(entry, 1_000))?;
        out.write_all(&file(format!("{entry}"), ""))
    })?;
    out.write_all(&[0; 1024])
}

/// A few entries that imply millions of directories, of gigabytes of names.
fn many_deep(out: &mut dyn Write, entries: usize) -> std::io::Result<()> {
    (0..entries).try_for_each(|entry| {
        out.write_all(&long(b'L', format!("{entry:04}/{}f", "d/".repeat(2_040))))?;
        out.write_all(&file("e", ""))
    })?;
    out.write_all(&[0; 1024])
}

/// Names of 4,000 bytes, of which 40,000 are more than is remembered.
fn long_names(out: &mut dyn Write) -> std::io::Result<()> {
    let rest = vec!["n".repeat(249); 16].join("/");
    (0..40_000).try_for_each(|entry| {
        out.write_all(&long(b'L', format!("{rest}/{entry}")))?;
        out.write_all(&directory("e"))
    })?;
    out.write_all(&[0; 1024])
}

fn tiny(out: &mut dyn Write) -> std::io::Result<()> {
    (0..300_000).try_for_each(|entry| out.write_all(&file(format!("{}/{entry}", entry % 500), "")))?;
    out.write_all(&[0; 1024])
}

/// A layer of 100,000 opaque directories and as many files, over an image of as many.
fn opaque_layer(out: &mut dyn Write) -> std::io::Result<()> {
    (0..100_000).try_for_each(|entry| {
        out.write_all(&file(format!("{entry}/.wh..wh..opq"), ""))?;
        out.write_all(&file(format!("{entry}/new"), ""))
    })?;
    out.write_all(&[0; 1024])
}

fn opaque_base(out: &mut dyn Write) -> std::io::Result<()> {
    (0..100_000).try_for_each(|entry| out.write_all(&file(format!("{entry}/old"), "")))?;
    out.write_all(&[0; 1024])
}

fn write_bomb(path: &Path, write: WriteBomb) {
    let mut out = std::io::BufWriter::new(fs::File::create(path).unwrap());
    write(&mut out).unwrap();
    out.flush().unwrap();
}

/// Imports one bomb, or applies the layer, and prints what came of it and the most anonymous memory meanwhile. Does
/// nothing unless the parent asks.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let folder = Path::new(&folder);
    let project = project_of(folder);
    let is_done = AtomicBool::new(false);
    let (kind, peak) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !is_done.load(Ordering::Relaxed) {
                peak = peak.max(anonymous_bytes());
                std::thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        let tar = fs::File::open(folder.join("bomb")).unwrap();
        let outcome = if std::env::var_os(CHILD_BOMB).is_some_and(|bomb| bomb == "layer") {
            let base = project.find(&"base".parse().unwrap()).unwrap();
            base.edit().apply_tar(tar).commit(&CommitOptions::default())
        } else {
            project.import_tar(tar, &ImportOptions::default())
        };
        is_done.store(true, Ordering::Relaxed);
        (outcome.map_or_else(|error| error.kind().as_str(), |_| "taken"), watch.join().unwrap())
    });
    println!("result {kind} {peak}");
}

fn project_of(folder: &Path) -> Project {
    let store = Store::open(folder.join("store")).unwrap();
    store.default_project().unwrap()
}

/// Pages that this process has and no file.
fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// What came of the bomb in a process of its own.
fn run(place: &Place, bomb: &str) -> (String, u64) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["bombs::child", "--exact", "--nocapture"]);
    command.env(CHILD_BOMB, bomb).env(CHILD_FOLDER, place.path("")).stderr(Stdio::inherit());
    let begun = Instant::now();
    let output = command.output().unwrap();
    let time = begun.elapsed();
    assert!(output.status.success(), "{bomb}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let result = text.lines().find_map(|line| line.split_once("result ")).expect("a result").1.to_owned();
    let (kind, peak) = result.split_once(' ').unwrap();
    let peak = peak.parse::<u64>().unwrap();
    println!("{bomb}: {kind}, {} MiB, {:.1} s", peak >> 20, time.as_secs_f64());
    assert!(peak < PEAK_BYTES, "{bomb} took {} MiB", peak >> 20);
    assert!(time < TIME, "{bomb} took {time:?}");
    (kind.to_owned(), peak)
}

#[test]
fn memory_stays_bounded() {
    for (bomb, end, write) in BOMBS {
        let place = Place::new();
        write_bomb(&place.path("bomb"), write);
        let (kind, _) = run(&place, bomb);
        let wanted = match end {
            Taken => "taken",
            Refused(kind) => kind.as_str(),
        };
        assert_eq!(kind, wanted, "{bomb}");
    }
}

#[test]
fn a_layer_of_many_opaque_directories_is_applied_in_little_time_and_memory() {
    let place = Place::new();
    write_bomb(&place.path("base"), opaque_base);
    write_bomb(&place.path("bomb"), opaque_layer);
    {
        let options = ImportOptions { tags: crate::given::tags(&["base"]), ..ImportOptions::default() };
        project_of(&place.path(""))
            .import_tar(fs::File::open(place.path("base")).unwrap(), &options)
            .unwrap();
    }
    assert_eq!(run(&place, "layer").0, "taken");
}
