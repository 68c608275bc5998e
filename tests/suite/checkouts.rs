//! What a store keeps of checkouts over their lives.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use layerstone::{CheckoutOptions, CommitOptions, ErrorKind, Image, ImportOptions, Store, StoreOptions};

use crate::given::{Place, project};

/// The state files of a store's checkouts and their sizes. The first is the imported directory's.
fn state_files(place: &Place) -> Vec<(PathBuf, u64)> {
    let files = fs::read_dir(place.path("store/directories")).unwrap().map(|entry| entry.unwrap());
    let files = files.filter(|file| file.file_name() != "0000000001.state");
    files.map(|file| (file.path(), file.metadata().unwrap().len())).collect()
}

fn check_out(image: &Image, place: &Place, name: &str) -> PathBuf {
    let directory = place.path(name);
    image.check_out(&directory, CheckoutOptions::default()).unwrap();
    directory
}

#[test]
fn the_state_of_a_checkout_that_is_often_committed_stays_small() {
    let place = Place::new();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let names: Vec<_> = (0..1000).map(|i| format!("directory-{}/file-{i}", i % 10)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let source = place.directory("source", &files);
    let image = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let checkout = check_out(&project.find(&image.into()).unwrap(), &place, "checkout");
    let [(_, fresh_bytes)] = state_files(&place)[..] else { panic!("one file") };
    let mut most_bytes = 0;
    let mut times_written = 0;
    for round in 0..40 {
        let before = state_files(&place)[0].0.clone();
        for (name, _) in files.iter().skip(round).step_by(4) {
            fs::write(checkout.join(name), format!("{round}")).unwrap();
        }
        fs::write(checkout.join("first"), format!("{round}")).unwrap();
        assert!(project.commit(&checkout, &CommitOptions::default()).unwrap().is_new);
        // What was just written is too young to be trusted; a while later it is looked at once more.
        std::thread::sleep(Duration::from_millis(30));
        let unchanged = project.commit(&checkout, &CommitOptions::default()).unwrap();
        assert!(!unchanged.is_new && unchanged.examined <= 252, "{unchanged:?}");
        let [(file, bytes)] = &state_files(&place)[..] else { panic!("one file") };
        most_bytes = most_bytes.max(*bytes);
        times_written += u32::from(*file != before);
    }
    assert!(most_bytes <= 2 * fresh_bytes + (100 << 10), "{most_bytes} bytes, at first {fresh_bytes}");
    assert!((2..40).contains(&times_written), "it was written anew {times_written} times");
    assert_eq!(project.commit(&checkout, &CommitOptions::default()).unwrap().examined, 0);
}

#[test]
fn checkouts_whose_directories_are_gone_are_forgotten() {
    let place = Place::new();
    let options = StoreOptions::default().directory_grace(Duration::ZERO);
    let project = project(&options.open(place.path("store")).unwrap(), "p");
    let source = place.directory("source", &[("motd", b"hello")]);
    let image = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let image = project.find(&image.into()).unwrap();
    let kept = check_out(&image, &place, "kept");
    for round in 0..200 {
        fs::remove_dir_all(check_out(&image, &place, &format!("{round}"))).unwrap();
    }
    let files = state_files(&place).len();
    assert!((2..10).contains(&files), "{files} state files");
    // The rename that put it in place was a change of the directory itself.
    assert_eq!(project.commit(&kept, &CommitOptions::default()).unwrap().examined, 1);
}

#[test]
fn a_checkout_that_was_moved_is_known_and_stays_so_by_a_commit() {
    let place = Place::new();
    let store = |grace| {
        let options = StoreOptions::default().directory_grace(grace);
        project_of(&options.open(place.path("store")).unwrap())
    };
    let source = place.directory("source", &[("motd", b"hello")]);
    let patient = store(Duration::from_secs(3600));
    let id = patient.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let image = patient.find(&id.into()).unwrap();
    for name in ["committed", "only-moved"] {
        let moved = place.path(&format!("{name}-moved"));
        fs::rename(check_out(&image, &place, name), &moved).unwrap();
    }
    check_out(&image, &place, "another");
    fs::write(place.path("committed-moved/new"), "new").unwrap();
    assert!(patient.commit(place.path("committed-moved"), &CommitOptions::default()).unwrap().is_new);
    drop((image, patient));

    let hasty = store(Duration::ZERO);
    for round in 0..3 {
        check_out(&hasty.find(&id.into()).unwrap(), &place, &format!("more-{round}"));
    }
    assert!(!hasty.commit(place.path("committed-moved"), &CommitOptions::default()).unwrap().is_new);
    let error = hasty.commit(place.path("only-moved-moved"), &CommitOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let named = CommitOptions { base: Some(id.into()), ..CommitOptions::default() };
    assert!(!hasty.commit(place.path("only-moved-moved"), &named).unwrap().is_new);
}

#[test]
fn a_checkout_whose_state_is_lost_is_committed_by_its_base_and_known_again() {
    let place = Place::new();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let source = place.directory("source", &[("motd", b"hello"), ("dir/other", b"other")]);
    let id = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let checkout = check_out(&project.find(&id.into()).unwrap(), &place, "checkout");
    for damage in ["gone", "cut", "rubbish"] {
        let [(state, _)] = &state_files(&place)[..] else { panic!("one file") };
        let sound = fs::read(state).unwrap();
        match damage {
            "gone" => fs::remove_file(state).unwrap(),
            "cut" => fs::write(state, &sound[..sound.len() - 1]).unwrap(),
            _ => fs::write(state, vec![7; sound.len()]).unwrap(),
        }
        fs::write(checkout.join("motd"), damage).unwrap();
        let error = project.commit(&checkout, &CommitOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("naming its base"), "{error}");
        let named = CommitOptions { base: Some(id.into()), ..CommitOptions::default() };
        let report = project.commit(&checkout, &named).unwrap();
        assert!(report.is_new && report.examined == 4, "all of it is read: {report:?}");
        std::thread::sleep(Duration::from_millis(30));
        let unchanged = project.commit(&checkout, &CommitOptions::default()).unwrap();
        assert_eq!((unchanged.image, unchanged.is_new), (report.image, false), "{unchanged:?}");
        assert_eq!(project.commit(&checkout, &CommitOptions::default()).unwrap().examined, 0);
    }
}

#[test]
fn a_checkout_committed_on_another_base_is_a_checkout_of_what_came_of_it() {
    let place = Place::new();
    let project = project(&Store::open(place.path("store")).unwrap(), "p");
    let source = place.directory("source", &[("motd", b"hello")]);
    let first = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    fs::write(source.join("more"), "more").unwrap();
    let second = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
    let checkout = check_out(&project.find(&first.into()).unwrap(), &place, "checkout");
    fs::write(checkout.join("own"), "own").unwrap();
    let named = CommitOptions { base: Some(second.into()), ..CommitOptions::default() };
    let report = project.commit(&checkout, &named).unwrap();
    let image = project.find(&report.image.into()).unwrap();
    assert_eq!(image.info().parent, Some(second));
    assert!(crate::given::read(&image, "more").unwrap_err().is_not_found(), "the directory had no such file");
    let unchanged = project.commit(&checkout, &CommitOptions::default()).unwrap();
    assert_eq!((unchanged.image, unchanged.is_new), (report.image, false));
}

fn project_of(store: &Store) -> layerstone::Project {
    store.default_project().unwrap()
}
