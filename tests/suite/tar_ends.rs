//! Where a tar ends, what follows its end mark, and which of its paths give way to others: what is said of it, and what is
//! refused.

use std::os::unix::fs::FileExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::raw_tar::{Header, archive, directory, file, hard_link};
use crate::system::is_on;
use crate::tars::{Given, WAYS, gzip, zstd};

impl Given {
    /// Imports or commits a tar in one way; what was said, and the report.
    #[track_caller]
    fn said(&self, way: &[&str], tar: &[u8]) -> (String, Value) {
        let output = self.run(way, tar);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{way:?}: {text}");
        let output = self.run(&[&["--json"], way].concat(), tar);
        (text, serde_json::from_slice(&output.stdout).unwrap())
    }

    /// Refused with `--require-end` in every way, and no tag is set.
    #[track_caller]
    fn refused_strictly(&self, tar: &[u8], message: &str) {
        for way in WAYS {
            let output = self.run(&[way, &["--require-end", "--tag", "strict"]].concat(), tar);
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), text.contains(message)), (Some(2), true), "{way:?}: {text}");
            assert_eq!(self.cli.fails(&["inspect", "strict"]).0, 3, "{way:?}");
        }
    }
}

/// A zstd frame that carries no data.
const SKIPPABLE: [u8; 12] = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];

#[test]
fn other_data_behind_the_end_mark_is_said_and_refused_if_asked() {
    let given = Given::new();
    let (one, two) = (archive(&[file("a", "a")]), archive(&[file("b", "b")]));
    let both = [&one[..], &two].concat();
    let padded = [&one[..], &[0; 9_000], &two].concat();
    for (tar, at) in [
        (both.clone(), one.len()),
        (padded.clone(), one.len() + 9_000),
        ([&one[..], b"junk"].concat(), one.len()),
        (gzip(&both), one.len()),
        (zstd(&padded), one.len() + 9_000),
        ([gzip(&one), gzip(&two)].concat(), one.len()),
        ([gzip(&one), vec![0; 700], gzip(&two)].concat(), one.len()),
        ([zstd(&one), SKIPPABLE.to_vec(), zstd(&two)].concat(), one.len()),
    ] {
        given.refused_strictly(
            &tar,
            &format!("goes on behind its end mark with other data than zeros at byte {at}"),
        );
        for way in WAYS {
            let (text, report) = given.said(way, &tar);
            assert!(text.contains(&format!("other data begins at byte {at}, and was not read")), "{text}");
            assert_eq!(report["source"]["other_data_at"], at, "{way:?}");
            assert_eq!(report["has_end_mark"], true);
            assert!(!given.list("x").contains(&"b".to_owned()), "{way:?}");
        }
    }
}

#[test]
fn zeros_behind_the_end_mark_are_padding() {
    let given = Given::new();
    let tar = archive(&[file("a", "a")]);
    let padded = [&tar[..], &[0; 9_001]].concat();
    for tar in [
        padded.clone(),
        gzip(&padded),
        zstd(&padded),
        [gzip(&tar), vec![0; 700]].concat(),
        [gzip(&tar[..512]), gzip(&tar[512..])].concat(),
        [gzip(&tar), gzip(&[0; 5_000]), gzip(&[])].concat(),
        [SKIPPABLE.to_vec(), zstd(&tar), SKIPPABLE.to_vec(), vec![0; 9]].concat(),
    ] {
        for way in WAYS {
            let output = given.run(&[way, &["--require-end"]].concat(), &tar);
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success() && text.is_empty(), "{way:?}: {text}");
        }
    }
    assert_eq!(given.said(WAYS[0], &padded).1["source"]["other_data_at"], Value::Null);
}

#[test]
fn a_compressed_tar_that_was_cut_at_a_border() {
    let given = Given::new();
    let tar = archive(&[file("a", "a"), file("b", "b")]);
    for pack in [gzip, zstd] {
        let members = [pack(&tar[..1_024]), pack(&tar[1_024..])];
        given.refused_strictly(&members[0], "ends without the two zero blocks");
        let (text, report) = given.said(WAYS[0], &members[0]);
        assert!(text.contains("may have been cut short"), "{text}");
        assert_eq!(report["has_end_mark"], false);
        let both = members.concat();
        for cut in [both.len() - 1, members[0].len() + 5] {
            given.refused_strictly(&both[..cut], "damaged");
        }
    }
    for (magic, name) in [(&b"\xfd7zXZ\0\0\x04"[..], "xz"), (b"BZh91AY&SY", "bzip2")] {
        let output = given.run(&["import", "-", "--tag", "strict", "--require-end"], magic);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(7), "{text}");
        assert!(text.contains(&format!("compressed by {name}")), "{text}");
    }
}

#[test]
fn an_archive_of_nothing_is_said_to_be_one() {
    let given = Given::new();
    for zeros in [1_024, 10_240, 1 << 20] {
        let tar = vec![0; zeros];
        for tar in [tar.clone(), gzip(&tar), zstd(&tar)] {
            for way in [WAYS[0], WAYS[2]] {
                let (text, report) = given.said(way, &tar);
                assert!(text.contains("The tar has no entries: the image is empty."), "{text}");
                assert_eq!((&report["entries"], &report["examined"]), (&json!(1), &json!(0)));
            }
            for way in [WAYS[1], WAYS[3]] {
                let (text, report) = given.said(way, &tar);
                assert!(text.contains("The tar has no entries: it changes nothing."), "{text}");
                assert_eq!((&report["is_new"], &report["examined"]), (&json!(false), &json!(0)));
            }
        }
    }
    for tar in [&[][..], &[0; 512]] {
        for tar in [tar.to_vec(), gzip(tar), zstd(tar)] {
            given.refused_strictly(&tar, "is ");
            let output = given.run(&["import", "given.tar", "--tag", "strict"], &tar);
            assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[test]
fn paths_that_give_way_to_later_ones_are_counted_and_the_first_is_named() {
    let given = Given::new();
    let full = || [file("d/f", ""), file("d/g/h", ""), file("a", "")].concat();
    for (tar, paths, example) in [
        (archive(&[full(), file("d", "")]), 2, "/d/f"),
        (archive(&[full(), hard_link("d", "a")]), 2, "/d/f"),
        (archive(&[full(), Header::new(b'6', "d").bytes()]), 2, "/d/f"),
        (archive(&[full(), Header::new(b'3', "d").octal(329, 8, 1).octal(337, 8, 3).bytes()]), 2, "/d/f"),
        (archive(&[full(), directory("d/f/"), file("a/b/c", "")]), 1, "/a"),
    ] {
        for way in WAYS {
            let (text, report) = given.said(way, &tar);
            assert!(text.contains(&format!("gave way to later entries, {example} first")), "{way:?}: {text}");
            let gave_way = json!({ "paths": paths, "example": { "path": example } });
            assert_eq!(report["source"]["gave_way"], gave_way, "{way:?}");
        }
    }
    // A later entry of the same path takes nothing away.
    let tar = archive(&[file("a", "1"), file("a", "2"), directory("b/"), directory("b/"), file("b/c", "")]);
    for way in WAYS {
        let (text, report) = given.said(way, &tar);
        assert_eq!((text.contains("gave way"), &report["source"]["gave_way"]), (false, &Value::Null));
    }
}

/// busybox knows no sparse files: it would unpack a map and the data as the file.
#[test]
fn an_export_without_sparse_files_is_whole_for_programs_that_know_none() {
    if !is_on() {
        return;
    }
    let given = Given::new();
    let tree = given.cli.path("tree");
    for name in ["big", "etc/big"] {
        let file = std::fs::File::create(tree.join(name)).unwrap();
        file.set_len(3 << 20).unwrap();
        file.write_all_at(name.as_bytes(), 2 << 20).unwrap();
    }
    given.cli.ok(&["import", "tree", "--tag", "sparse"]);
    given.cli.ok(&["export", "sparse", "--no-sparse", "-o", "whole.tar"]);
    let out = given.cli.path("out");
    std::fs::create_dir(&out).unwrap();
    let mut busybox = Command::new("busybox");
    busybox.args(["tar", "-xf", "../whole.tar"]).current_dir(&out);
    assert!(busybox.status().unwrap().success());
    for name in ["big", "etc/big"] {
        assert!(std::fs::read(out.join(name)).unwrap() == std::fs::read(tree.join(name)).unwrap(), "{name}");
    }
    let tar = std::fs::read(given.cli.path("whole.tar")).unwrap();
    assert!(!tar.windows(10).any(|bytes| bytes == b"GNU.sparse"));
}

#[test]
fn files_that_an_incremental_dump_lists_and_lacks_are_counted() {
    if !is_on() {
        return;
    }
    let given = Given::new();
    let tree = given.cli.path("dumped");
    std::fs::create_dir_all(tree.join("below")).unwrap();
    for name in ["a", "b", "below/c"] {
        std::fs::write(tree.join(name), name).unwrap();
    }
    let dump = |format: &str, snapshot: &str| {
        let mut tar = Command::new("tar");
        tar.current_dir(given.cli.path("")).args(["--format", format, "-C", "dumped", "-g", snapshot]);
        tar.args(["-cf", "-", "."]).output().unwrap().stdout
    };
    for format in ["gnu", "pax"] {
        let snapshot = given.cli.path(format).display().to_string();
        let (text, report) = given.said(WAYS[0], &dump(format, &snapshot));
        assert!(!text.contains("dump") && report["source"]["not_kept"] == json!([]), "{format}: {text}");
        // Nothing has changed since.
        let (text, report) = given.said(WAYS[0], &dump(format, &snapshot));
        assert!(
            text.contains("3 files that this incremental dump lists are not in it: /a; unpack"),
            "{text}"
        );
        let kinds = json!([{ "what": "file of an earlier dump", "paths": 3, "example": { "path": "/a" } }]);
        assert_eq!(report["source"]["not_kept"], kinds, "{format}");
    }
}

#[test]
fn a_layer_puts_nothing_below_a_whiteout() {
    let given = Given::new();
    for members in [
        &[file("d/.wh.old/x", "x")][..],
        &[directory("d/.wh.old/"), file("d/.wh.old/x", "x")],
        &[file(".wh.a/.wh.b", "")],
    ] {
        let output = given.run(WAYS[1], &archive(members));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.contains("below a whiteout")), (Some(2), true), "{text}");
    }
}
