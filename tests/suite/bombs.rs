//! Archives that are small and ask for much: whether they are refused or taken, what a process needs for it stays bounded.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use layerstone::{CommitOptions, ErrorKind, ImportOptions, Project, Store};

use crate::given::Place;
use crate::raw_tar::{Header, archive, directory, file, long, pax};

/// The most anonymous memory that importing any of them may take.
const PEAK_BYTES: u64 = 200 << 20;

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
    ("tiny", Taken, |out| tiny(out, 300_000)),
];

/// Archives of a size that take much work if any part of it grows with the square of that size.
type WriteMany = fn(&mut dyn Write, usize) -> std::io::Result<()>;

/// So many and eight times as many are imported.
const LINEAR: [(&str, usize, WriteMany); 3] =
    [("tiny", 5_000, tiny), ("xattrs", 100, many_xattrs), ("deep", 1, many_deep)];

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

fn tiny(out: &mut dyn Write, entries: usize) -> std::io::Result<()> {
    (0..entries).try_for_each(|entry| out.write_all(&file(format!("{}/{entry}", entry % 500), "")))?;
    out.write_all(&[0; 1024])
}

/// A layer of opaque directories and as many files, over an image of as many.
fn opaque_layer(out: &mut dyn Write, entries: usize) -> std::io::Result<()> {
    (0..entries).try_for_each(|entry| {
        out.write_all(&file(format!("{entry}/.wh..wh..opq"), ""))?;
        out.write_all(&file(format!("{entry}/new"), ""))
    })?;
    out.write_all(&[0; 1024])
}

fn opaque_base(out: &mut dyn Write, entries: usize) -> std::io::Result<()> {
    (0..entries).try_for_each(|entry| out.write_all(&file(format!("{entry}/old"), "")))?;
    out.write_all(&[0; 1024])
}

fn write_bomb(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) {
    let mut out = std::io::BufWriter::new(fs::File::create(path).unwrap());
    write(&mut out).unwrap();
    out.flush().unwrap();
}

/// Imports one bomb, or applies the layer, and prints what came of it, the most anonymous memory meanwhile, and what the
/// processor did for it. Does nothing unless the parent asks.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let folder = Path::new(&folder);
    let project = project_of(folder);
    let is_done = AtomicBool::new(false);
    let (kind, peak, work) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !is_done.load(Ordering::Relaxed) {
                peak = peak.max(anonymous_bytes());
                std::thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        let tar = fs::File::open(folder.join("bomb")).unwrap();
        let begun = work();
        let outcome = if std::env::var_os(CHILD_BOMB).is_some_and(|bomb| bomb == "layer") {
            let base = project.find(&"base".parse().unwrap()).unwrap();
            base.edit().apply_tar(tar).commit(&CommitOptions::default())
        } else {
            project.import_tar(tar, &ImportOptions::default())
        };
        is_done.store(true, Ordering::Relaxed);
        let kind = outcome.map_or_else(|error| error.kind().as_str(), |_| "taken");
        (kind, watch.join().unwrap(), work() - begun)
    });
    println!("result {kind} {peak} {work}");
}

/// What the processor did for this process, in microseconds of its own.
fn work() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
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

/// What came of the bomb in a process of its own, and the work that it was.
fn run(place: &Place, bomb: &str) -> (String, i64) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["bombs::child", "--exact", "--nocapture"]);
    command.env(CHILD_BOMB, bomb).env(CHILD_FOLDER, place.path("")).stderr(Stdio::inherit());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{bomb}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let result = text.lines().find_map(|line| line.split_once("result ")).expect("a result").1.to_owned();
    let [kind, peak, work] = result.split(' ').collect::<Vec<_>>()[..] else { panic!("{result}") };
    let peak = peak.parse::<u64>().unwrap();
    println!("{bomb}: {kind}, {} MiB, {work} µs", peak >> 20);
    assert!(peak < PEAK_BYTES, "{bomb} took {} MiB", peak >> 20);
    (kind.to_owned(), work.parse().unwrap())
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

/// Fails unless eight times as much is near eight times the work; with the square it would be 64 times.
fn assert_linear(name: &str, few: i64, many: i64) {
    println!("{name}: {few} and {many} µs");
    assert!(many < 20 * few, "{name}: eight times as much took {} times the work", many / few);
}

#[test]
fn work_grows_as_the_archive_does() {
    for (name, entries, write) in LINEAR {
        let [few, many] = [entries, 8 * entries].map(|entries| {
            let place = Place::new();
            write_bomb(&place.path("bomb"), |out| write(out, entries));
            let (kind, work) = run(&place, name);
            assert_eq!(kind, "taken", "{name}");
            work
        });
        assert_linear(name, few, many);
    }
}

#[test]
fn a_layer_of_many_opaque_directories_is_applied_in_little_work_and_memory() {
    let [few, many] = [12_500, 100_000].map(|entries| {
        let place = Place::new();
        write_bomb(&place.path("base"), |out| opaque_base(out, entries));
        write_bomb(&place.path("bomb"), |out| opaque_layer(out, entries));
        let options = ImportOptions { tags: crate::given::tags(&["base"]), ..ImportOptions::default() };
        let base = fs::File::open(place.path("base")).unwrap();
        project_of(&place.path("")).import_tar(base, &options).unwrap();
        let (kind, work) = run(&place, "layer");
        assert_eq!(kind, "taken");
        work
    });
    assert_linear("opaque directories", few, many);
}
