//! Writes the first inputs of every target that bytes alone don't lead to: `fuzz/corpus/TARGET/seed-*`. To be run again
//! after a change of a format: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.
//!
//! Tar archives come from GNU tar, which must be installed.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use layerstone::id::ObjectId;
use layerstone::layer::LayerRecord;
use layerstone::object::{ObjectKind, ObjectSink};
use layerstone::testing::{self, encode_frame};
use layerstone::tree::content::{self, ContentWriter};
use layerstone::tree::{self, Content, Entry, Inode, InodeKind, Timestamp, Xattrs, links};
use layerstone::{CheckoutOptions, CommitOptions, ImageRef, ImportOptions, StoreOptions, TreePath};

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let work = env::temp_dir().join(format!("layerstone-seeds-{}", std::process::id()));
    fs::create_dir_all(work.join("source"))?;
    let outcome = frames().and_then(|()| trees()).and_then(|()| records()).and_then(|()| headers());
    let outcome = outcome
        .and_then(|()| references())
        .and_then(|()| operations())
        .and_then(|()| losses())
        .and_then(|()| store_files(&work))
        .and_then(|()| archives(&work));
    fs::remove_dir_all(&work)?;
    outcome
}

/// Writes a seed, which its target must take.
fn seed(target: &str, name: &str, bytes: &[u8]) -> Outcome {
    let (_, check) = layerstone_fuzz::TARGETS.iter().find(|(known, _)| *known == target).ok_or(target)?;
    if !check(bytes) {
        return Err(format!("{target} refuses {name}").into());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(format!("seed-{name}")), bytes)?)
}

fn frames() -> Outcome {
    let object = |kind: ObjectKind, bytes: Vec<u8>| (kind.id_of(&bytes), kind, bytes);
    let noise: Vec<u8> =
        (0..60_u32).flat_map(|number| number.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    seed("frame", "one", &encode_frame(&[object(ObjectKind::Chunk, b"abc".repeat(50))])?)?;
    seed("frame", "noise", &encode_frame(&[object(ObjectKind::Chunk, noise)])?)?;
    let kinds = ObjectKind::ALL.map(|kind| object(kind, vec![kind as u8; 9])).to_vec();
    seed("frame", "kinds", &encode_frame(&kinds)?)
}

/// Objects as the `node` target reads them.
#[derive(Default)]
struct Collected(Vec<(ObjectId, Vec<u8>)>);

impl ObjectSink for Collected {
    fn put(&mut self, kind: ObjectKind, bytes: &[u8]) -> layerstone::Result<ObjectId> {
        let id = kind.id_of(bytes);
        self.0.push((id, bytes.to_vec()));
        Ok(id)
    }
}

impl Collected {
    /// All that was put, with the last in front: a root is stored after what it refers to.
    fn encode(&self) -> Vec<u8> {
        let encode = |(id, bytes): &(ObjectId, Vec<u8>)| {
            let [low, high, ..] = bytes.len().to_le_bytes();
            [&[id.as_bytes()[0], low, high], bytes.as_slice()].concat()
        };
        self.0.iter().rev().flat_map(encode).collect()
    }
}

fn inode(kind: InodeKind) -> Inode {
    let mtime = Timestamp { seconds: 1_700_000_000, nanos: 5 };
    Inode { mode: 0o644, uid: 0, gid: 1000, mtime, xattrs: Content::empty(), links: Content::empty(), kind }
}

fn path(text: &str) -> Result<TreePath, Box<dyn Error>> {
    Ok(TreePath::parse(text.as_bytes())?)
}

fn trees() -> Outcome {
    let mut sink = Collected::default();
    let kinds = [
        ("", InodeKind::Directory),
        ("a", InodeKind::File(content::write(&mut sink, b"inline")?)),
        ("b", InodeKind::File(content::write(&mut sink, &b"chunk ".repeat(400))?)),
        ("c", InodeKind::Symlink((*b"a").into())),
        ("d", InodeKind::CharDevice { major: 1, minor: 3 }),
        ("e", InodeKind::BlockDevice { major: 8, minor: 0 }),
        ("f", InodeKind::Fifo),
        ("g", InodeKind::Socket),
    ];
    let mut entries = Vec::new();
    for (name, kind) in kinds {
        entries.push((path(name)?, Entry::Inode(inode(kind))));
    }
    tree::build(&mut sink, entries)?;
    seed("node", "kinds", &sink.encode())?;

    let mut sink = Collected::default();
    let mut entries = vec![(TreePath::root(), Entry::Inode(inode(InodeKind::Directory)))];
    for number in 0..120 {
        entries.push((path(&format!("{number:03}"))?, Entry::Inode(inode(InodeKind::Fifo))));
    }
    tree::build(&mut sink, entries)?;
    seed("node", "branches", &sink.encode())?;

    let mut sink = Collected::default();
    let mut writer = ContentWriter::new(u64::MAX);
    writer.push_hole(&mut sink, 1 << 20)?;
    writer.push_bytes(&mut sink, &b"x".repeat(3000))?;
    let sparse = writer.finish(&mut sink)?;
    let mut xattrs = Xattrs::new();
    xattrs.insert(b"user.name", &b"value".repeat(100))?;
    let file = Inode {
        xattrs: xattrs.write(&mut sink)?,
        links: links::write(&mut sink, &BTreeSet::from([path("b")?]))?,
        ..inode(InodeKind::File(sparse))
    };
    let root = (TreePath::root(), Entry::Inode(inode(InodeKind::Directory)));
    let linked = [root, (path("a")?, Entry::Inode(file)), (path("b")?, Entry::HardLink(path("a")?))];
    tree::build(&mut sink, linked)?;
    seed("node", "sparse", &sink.encode())?;
    let (_, list) =
        sink.0.iter().find(|(_, bytes)| testing::reencode_chunk_list(bytes).is_ok()).ok_or("no list")?;
    seed("record", "list", &[&[2], list.as_slice()].concat())
}

fn records() -> Outcome {
    let mut xattrs = Xattrs::new();
    xattrs.insert(b"security.capability", &[1, 0, 0, 2, 0, 4])?;
    xattrs.insert(b"user.a", b"")?;
    seed("record", "xattrs", &[vec![0], xattrs.encode()].concat())?;
    seed("record", "links", &[vec![1], links::encode(&[path("a/b")?, path("a/c")?].into())].concat())?;
    let mut sink = Collected::default();
    let layer = LayerRecord {
        previous: Some(ObjectId::from_bytes([1; 32])),
        root: ObjectId::from_bytes([2; 32]),
        created_ms: 1_700_000_000_000,
        created_by: "commit".into(),
        comment: "words".into(),
        added: 1,
        modified: 300,
        removed: 0,
        changed_bytes: 1 << 40,
        diff_id: Some([3; 32]),
    };
    layer.write(&mut sink)?;
    seed("record", "layer", &[vec![3], sink.0.remove(0).1].concat())?;
    // Some number of zeros is a record of every kind.
    for choice in 4..16 {
        let zeros = |len| [vec![choice], vec![0; len]].concat();
        let len =
            (0..400).find(|len| layerstone_fuzz::record::check(&zeros(*len))).ok_or("no record of zeros")?;
        seed("record", &format!("catalog-{choice}"), &zeros(len))?;
    }
    Ok(())
}

fn headers() -> Outcome {
    let record = |text: &str| {
        let len =
            (1..).find(|len: &usize| len.to_string().len() + text.len() + 2 == *len).unwrap_or_default();
        format!("{len} {text}\n")
    };
    let seeds: [(&str, u8, &[&str]); 6] = [
        ("plain", 0, &["path=a/b", "mtime=1.5", "uid=70000", "SCHILY.xattr.user.a=b"]),
        (
            "sparse",
            1,
            &["GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=n", "GNU.sparse.realsize=600"],
        ),
        ("link", 2, &["linkpath=target"]),
        ("symlink", 3, &["linkpath=../x", "gid=5"]),
        ("device", 4, &["SCHILY.devmajor=1", "SCHILY.devminor=3"]),
        ("global", 0x80, &["mtime=7", "comment=all"]),
    ];
    for (name, choice, records) in seeds {
        let text: String = records.iter().map(|text| record(text)).collect();
        seed("pax", name, &[&[choice], text.as_bytes()].concat())?;
    }
    Ok(())
}

fn references() -> Outcome {
    let seeds = [
        ("tag", "debian:12"),
        ("uuid", "01a1fd0c-39df-7000-a8f7-c6b0185d6f7d"),
        ("prefix", "01a1fd0c"),
        ("oci", "docker://registry.example:5000/library/debian:12"),
    ];
    for (name, text) in seeds {
        seed("reference", name, text.as_bytes())?;
    }
    Ok(())
}

/// Calls that all succeed, as `fuzz/src/operations/call.rs` reads them.
fn operations() -> Outcome {
    const IMAGES: &[&[u8]] = &[
        &[8, 1],                           // makes a project,
        &[14, 1, 1, 7, 0x25, 0x37, 0x0e],  // imports into it,
        &[14, 0, 1, 3, 0x47, 0x52],        // and into the public scope,
        &[10, 1, 0, 2],                    // adopts that,
        &[13, 1, 1, 4, 1, 10, 0x2d, 0x33], // and commits a change of the first.
    ];
    const KEEP: &[&[u8]] = &[&[3, 1, 0]];
    const READ: &[&[u8]] = &[&[4]];
    const LOOK: &[&[u8]] = &[&[5], &[6], &[0x46]];
    const WAIT: &[&[u8]] = &[&[2]];
    const UNTAG: &[&[u8]] = &[&[11, 1, 1]];
    const REMOVE: &[&[u8]] = &[&[0x4c, 1, 0]];
    const COLLECT: &[&[u8]] = &[&[7]];
    const COLLECT_FULLY: &[&[u8]] = &[&[0x47]];
    const HOLD: &[&[u8]] = &[&[0x40, 1]];
    const CLOSE: &[&[u8]] = &[&[1]];

    let through_other = |calls: &[&[u8]]| -> Vec<u8> {
        calls.iter().flat_map(|call| [&[call[0] | 0x80], &call[1..]].concat()).collect()
    };
    let shared = [IMAGES, WAIT, LOOK, UNTAG, REMOVE, COLLECT].concat().concat();
    let held = [HOLD, IMAGES, KEEP, REMOVE, COLLECT_FULLY, READ, CLOSE, LOOK].concat().concat();
    // What the other handle keeps, the first removes and collects.
    let kept = through_other(KEEP);
    let collected = [REMOVE, COLLECT_FULLY].concat().concat();
    let two = [IMAGES.concat(), kept, collected, through_other(READ)].concat();
    seed("operations", "shared", &shared)?;
    seed("operations", "held", &held)?;
    seed("operations", "two", &two)?;
    // Imports, changes that, removes the change, tags the import, collects now and then, and reads: six times.
    let round = |number: u8| -> Vec<u8> {
        let [small, large] = [number << 3 | 4, number << 3 | 7];
        let import = [14, 1, 1, 15, small, large, small + 1, large - 1];
        let (commit, remove) = ([13, 1, 0, 2, 4, 3, large, small], [0x4c, 1, 0]);
        let tag = [10, 1, 1, 1 << (number % 5)];
        let collect = if number.is_multiple_of(2) { vec![7] } else { vec![0x47, 4] };
        [&import[..], &commit, &remove, &tag, &[0x83, 1, 1], &collect].concat()
    };
    let rounds: Vec<u8> = (0..6).flat_map(round).collect();
    seed("operations", "rounds", &[&[8, 1], rounds.as_slice(), &[0x84, 5, 6]].concat())?;
    // Each mishap in turn, after which the first content is imported again and all of it is looked at.
    let mishap = |number: u8| -> Vec<u8> {
        let again = [14, 1, 2, 7, 0x25, 0x37, 0x0e];
        [&[0x3f, number, number][..], &again, &LOOK.concat()].concat()
    };
    let mishaps: Vec<u8> = (0..7).flat_map(mishap).collect();
    seed("operations", "mishaps", &[IMAGES.concat(), mishaps, COLLECT_FULLY.concat()].concat())
}

/// A segment as a store writes it.
fn store_files(work: &Path) -> Outcome {
    let source = work.join("source");
    for number in 0..6 {
        fs::write(source.join(format!("file-{number}")), format!("content {number}").repeat(20))?;
    }
    fs::create_dir_all(source.join("directory"))?;
    fs::hard_link(source.join("file-0"), source.join("directory/linked"))?;
    std::os::unix::fs::symlink("file-1", source.join("symlink"))?;
    let sparse = fs::File::create(source.join("sparse"))?;
    sparse.set_len(200 << 10)?;

    let folder = work.join("store");
    // So few objects that a pack is sealed, and gets a segment.
    let store = StoreOptions::default().row_objects(4).open(&folder)?;
    let project = store.create_project(&"seeds".parse()?)?;
    let image = project
        .import_directory(&source, &ImportOptions { tags: vec!["a".parse()?], ..Default::default() })?;
    let reference: ImageRef = image.image.to_string().parse()?;
    let copy = work.join("copy");
    project.find(&reference)?.check_out(&copy, CheckoutOptions::default())?;
    fs::write(copy.join("new"), "new")?;
    fs::remove_file(copy.join("file-3"))?;
    project.commit(&copy, &CommitOptions::default())?;
    let mut states: Vec<PathBuf> = fs::read_dir(folder.join("directories"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    states.sort();
    for (state, name) in states.iter().zip(["import", "checkout"]) {
        seed("state", name, &testing::unpack_state(&fs::read(state)?)?)?;
    }
    // More objects, for the pack to be sealed by the next that is written.
    fs::write(source.join("more"), "more")?;
    project.import_directory(&source, &ImportOptions::default())?;
    seed("segment", "sealed", &only_file(&folder.join("segments"))?)?;
    store.dump_catalog()?;
    seed("dump", "store", &fs::read(folder.join("catalog.dump"))?)
}

/// The first by name.
fn only_file(folder: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    Ok(fs::read(files.first().ok_or_else(|| format!("{} is empty", folder.display()))?)?)
}

fn losses() -> Outcome {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let (image, of, count) = ([7; 16], [8; 16], 3_u64.to_le_bytes());
    let damaged = [&[0][..], &image, &count, &text("p"), &text("a\nb:c")].concat();
    let restored = [&[1][..], &image, &text("public")].concat();
    let places = [&[2][..], &text("/there"), &[3], &text("w of p")].concat();
    let salvaged = [&[4][..], &image, &of, &count, &text("p")].concat();
    let all = [&damaged[..], &restored, &places, &salvaged].concat();
    for (name, losses) in [("none", &[][..]), ("damaged", &damaged), ("every-kind", &all)] {
        let body = [b"LSLOST\x01\x00", losses].concat();
        seed("losses", name, &[&body[..], blake3::hash(&body).as_bytes()].concat())?;
    }
    Ok(())
}

fn archives(work: &Path) -> Outcome {
    for format in ["v7", "oldgnu", "gnu", "ustar", "posix"] {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--numeric-owner", "--format", format, "--blocking-factor", "1"]);
        tar.arg(if matches!(format, "v7" | "ustar") { "--exclude=./sparse" } else { "--sparse" });
        let output = tar.arg("--directory").arg(work.join("source")).arg(".").output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        seed("tar", format, &output.stdout)?;
    }
    Ok(())
}
