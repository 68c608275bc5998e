//! Saved images in less usual forms are no root file systems, and file systems that have files of such names are.

use std::os::unix::fs::symlink as symlink_at;

use crate::raw_tar::{archive, directory, file, hard_link, symlink};
use crate::tars::Given;

const MANIFEST: &str = r#"[{"Config":"c.json","RepoTags":null,"Layers":["l/layer.tar"]}]"#;
const LAYOUT: &str = r#"{"imageLayoutVersion": "1.0.0"}"#;
const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const INDEX: &str = r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:00","size":1}]}"#;

impl Given {
    /// Imports what `given.tar` is made of; the code.
    fn import_code(&self, parts: &[Vec<u8>]) -> (Option<i32>, String) {
        let output = self.run(&["import", "given.tar", "--tag", "x"], &archive(parts));
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn every_form_of_a_saved_image_is_refused() {
    let given = Given::new();
    let blob = || file("blobs/sha256/00", "blob");
    let long = format!("{}{MANIFEST}", " ".repeat(2 << 20));
    let marked = format!("\u{feff}{MANIFEST}");
    for parts in [
        vec![file("manifest.json", long)],
        vec![file("manifest.json", &marked)],
        vec![file("oci-layout", format!("\u{feff}{LAYOUT}")), blob()],
        vec![file("m.json", MANIFEST), hard_link("manifest.json", "m.json")],
        vec![file("m.json", MANIFEST), symlink("manifest.json", "m.json")],
        vec![symlink("manifest.json", "./x/m"), file("x/m", MANIFEST)],
        vec![symlink("oci-layout", "/l"), file("l", LAYOUT)],
        vec![file("index.json", INDEX), blob()],
        vec![blob(), file("./index.json", INDEX)],
    ] {
        given.refused(&archive(&parts), 7, "is a saved image, as its '/");
    }
    let layout = |name: &str, content: &str| {
        vec![
            directory("./"),
            directory("./img"),
            file(format!("./img/{name}"), content),
            file("img/blobs/sha256/00", ""),
        ]
    };
    let alone = |name: &str, content: &str| vec![directory("img/"), file(format!("img/{name}"), content)];
    for parts in [
        layout("oci-layout", LAYOUT),
        layout("index.json", INDEX),
        layout("manifest.json", MANIFEST),
        alone("oci-layout", LAYOUT),
        alone("manifest.json", MANIFEST),
        alone("repositories", &format!(r#"{{"a":{{"latest":"{ID}"}}}}"#)),
    ] {
        let (code, text) = given.import_code(&parts);
        assert!(code == Some(7) && text.contains("is a saved image, as its '/img/"), "{text}");
    }
    // A layer may well bring one.
    let output =
        given.run(&["commit", "--layer", "-", "--base", "base"], &archive(&layout("oci-layout", LAYOUT)));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_image_without_a_name_is_told_by_its_layers() {
    let given = Given::new();
    let layer = |place: &str, names: &[&str]| -> Vec<_> {
        let names = names.iter().map(|name| file(format!("{place}{ID}/{name}"), "1.0"));
        std::iter::once(directory(format!("{place}{ID}/"))).chain(names).collect()
    };
    let all = ["VERSION", "json", "layer.tar"];
    for parts in [layer("", &all), layer("saved/", &all), [layer("", &all), vec![file("x", "")]].concat()] {
        let (code, text) = given.import_code(&parts);
        assert!(code == Some(7) && text.contains("is a saved image, as its '/"), "{text}");
    }
    for parts in [
        layer("", &all[..2]),
        layer("a/b/", &all),
        [layer("saved/", &all), vec![file("x", "")]].concat(),
        all.iter().map(|name| file(format!("short/{name}"), "1.0")).collect(),
    ] {
        given.taken(&archive(&parts));
    }
    for (names, code) in [(&all[..2], 0), (&all, 7)] {
        let saved = given.cli.path("saved");
        let layer = saved.join(ID);
        std::fs::create_dir_all(&layer).unwrap();
        for name in names {
            std::fs::write(layer.join(name), "1.0").unwrap();
        }
        assert_eq!(given.cli.run(&["import", "saved"]).status.code(), Some(code));
        std::fs::remove_dir_all(&saved).unwrap();
    }
}

#[test]
fn a_refusal_names_options_of_the_command_that_was_given() {
    let given = Given::new();
    let tar = archive(&[file("manifest.json", MANIFEST)]);
    for (way, word, other) in [
        (&["import", "-"][..], "--format", "--any-layer"),
        (&["commit", "--layer", "-", "--base", "base"], "--any-layer", "--format"),
    ] {
        let text = String::from_utf8(given.run(way, &tar).stderr).unwrap();
        assert!(text.contains(word) && !text.contains(other), "{text}");
    }
}

#[test]
fn a_file_system_that_holds_such_files_is_taken() {
    let given = Given::new();
    for parts in [
        vec![file("index.json", INDEX)],
        vec![file("index.json", r#"{"schemaVersion":2}"#), file("blobs/x", "")],
        vec![file("srv/oci-layout", LAYOUT), file("srv/blobs/sha256/00", ""), file("etc/passwd", "")],
        vec![file("srv/oci-layout", LAYOUT), directory("etc")],
        vec![file("srv/index.json", INDEX)],
        vec![file("a/b/oci-layout", LAYOUT), file("a/b/blobs/sha256/00", "")],
        vec![file("m.json", MANIFEST)],
        vec![symlink("manifest.json", "m.json"), file("m.json", "{}")],
        vec![symlink("manifest.json", "nowhere")],
        vec![file("manifest.json", vec![b' '; 2 << 20])],
    ] {
        given.taken(&archive(&parts));
    }
}

#[test]
fn directories_are_looked_at_in_the_same_way() {
    let given = Given::new();
    let saved = given.cli.path("saved");
    for (name, content, code) in [("m.json", MANIFEST, 7), ("m.json", "{}", 0)] {
        std::fs::create_dir(&saved).unwrap();
        std::fs::write(saved.join(name), content).unwrap();
        symlink_at(name, saved.join("manifest.json")).unwrap();
        assert_eq!(given.cli.run(&["import", "saved"]).status.code(), Some(code));
        std::fs::remove_dir_all(&saved).unwrap();
    }
    for (place, name, content) in
        [("img", "oci-layout", LAYOUT), ("img", "index.json", INDEX), (".", "index.json", INDEX)]
    {
        std::fs::create_dir_all(saved.join(place).join("blobs/sha256")).unwrap();
        std::fs::write(saved.join(place).join(name), content).unwrap();
        let (code, message) = given.cli.fails(&["import", "saved"]);
        assert!(code == 7 && message.contains("is a saved image"), "{code}: {message}");
        if place == "img" {
            std::fs::write(saved.join("beside"), "").unwrap();
            given.cli.ok(&["import", "saved"]);
        }
        std::fs::remove_dir_all(&saved).unwrap();
    }
}
