//! What would help after a failure: in the library an option of the call, in the program an option of the command.

use std::fs;

use layerstone::{CommitOptions, ErrorKind, ImportOptions, OverlayMarks, Remedy, StoreOptions, TarOptions};

use crate::cli::Cli;
use crate::given::{Place, parse, project, reference};

/// A tar with a member of this name and content.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

const LAYOUT: (&str, &[u8]) = ("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#);

#[test]
fn a_library_user_reads_of_options_that_calls_have() {
    let place = Place::new();
    let no_store = StoreOptions::default().create(false).open(place.path("missing")).unwrap_err();
    let store = StoreOptions::default().open(place.path("store")).unwrap();
    let no_project = store.project(&parse("nope")).unwrap_err();
    let project = project(&store, "demo");
    let source = place.directory("source", &[("file", b"text")]);
    let no_checkout = project.commit(&source, &CommitOptions::default()).unwrap_err();
    let saved = project.import_tar(&tar(LAYOUT.0, LAYOUT.1)[..], &ImportOptions::default()).unwrap_err();
    project
        .import_directory(&source, &ImportOptions { tags: vec![parse("a")], ..Default::default() })
        .unwrap();
    let upper = place.directory("upper", &[(".wh.file", b"")]);
    let marks = project
        .commit_upper(&upper, &reference("a"), OverlayMarks::User, &CommitOptions::default())
        .unwrap_err();
    for (error, kind, word) in [
        (&no_store, ErrorKind::NotFound, "`StoreOptions::create`"),
        (&no_project, ErrorKind::NotFound, "`Store::create_project`"),
        (&no_checkout, ErrorKind::Invalid, "`CommitOptions::base`"),
        (&saved, ErrorKind::Unsupported, "`TarOptions::accept_saved_image`"),
        (&marks, ErrorKind::Invalid, "`OverlayMarks::FuseOverlayfs`"),
    ] {
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        assert!(text.contains(word) && !text.contains("--"), "{text}");
        let remedy = error.remedy().unwrap();
        assert_eq!(text, format!("{}; {remedy}", error.fault()));
    }
    assert_eq!(saved.remedy(), Some(Remedy::AcceptSavedImage));
    let tar_options = TarOptions { accept_saved_image: true, ..TarOptions::default() };
    let options = ImportOptions { tar: tar_options, ..ImportOptions::default() };
    project.import_tar(&tar(LAYOUT.0, LAYOUT.1)[..], &options).unwrap();
}

#[test]
fn a_user_of_the_program_reads_of_options_that_commands_have() {
    let cli = Cli::new();
    cli.tree();
    assert!(cli.fails(&["images"]).1.contains("'layerstone init'"));
    cli.ok(&["import", "tree", "--tag", "a"]);
    fs::write(cli.path("saved.tar"), tar(LAYOUT.0, LAYOUT.1)).unwrap();
    fs::create_dir(cli.path("upper")).unwrap();
    fs::write(cli.path("upper/.wh.issue"), "").unwrap();
    for (words, answer) in [
        (&["--project", "nope", "images"][..], "'layerstone project create'"),
        (&["commit", "tree"], "--base"),
        (&["import", "saved.tar"], "--format"),
        (&["commit", "--base", "a", "--layer", "saved.tar"], "--any-layer"),
        (
            &["commit", "--base", "a", "--upper", "upper", "--userxattr"],
            "commit with --fuse-overlayfs, or with --keep-marks",
        ),
        (&["import", "/proc/sys/kernel/random"], "(--exclude), or keep"),
    ] {
        let (_, said) = cli.fails(words);
        assert!(said.contains(answer) && !said.contains("::"), "{words:?}: {said}");
        let output = cli.run(&[words, &["--json"]].concat());
        let failure: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
        assert!(failure["message"].as_str().unwrap().contains(answer), "{failure}");
    }
}
