//! The store from the command line: locked, damaged, verified, repaired, collected.

use layerstone::StoreOptions;

use super::{Cli, last_line};

#[test]
fn a_store_that_is_held_is_locked_and_names_its_holder() {
    let cli = Cli::new();
    let held = StoreOptions::default().exclusive(true).open(cli.path("store")).unwrap();
    let (code, said) = cli.fails(&["--lock-timeout", "0.2", "images"]);
    assert_eq!(code, 5);
    assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
    drop(held);
    cli.ok(&["images"]);
}

#[test]
fn a_store_is_verified_and_damage_said() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree"]);
    let sound = cli.ok(&["verify"]);
    assert!(sound.starts_with("1 image and ") && sound.ends_with(": all sound\n"), "{sound}");
    assert!(cli.ok(&["verify", "--json"]).contains("\"fault_count\": 0"));
    let pack = cli.path("store/packs/0000000001.pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let output = cli.run(&["verify"]);
    assert_eq!(output.status.code(), Some(6));
    let [said, faults] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(
        said.contains("\n  pack 1: ") && said.contains(" of default: ") && said.contains("\n    /"),
        "{said}"
    );
    assert!(said.lines().last().unwrap().contains(", 1 image damaged"), "{said}");
    assert!(faults.contains("damage was found; 'repair' keeps what is sound"), "{faults}");
    let quick = cli.run(&["verify", "--quick"]);
    assert!(String::from_utf8(quick.stdout).unwrap().contains("file contents not read: "));
}

#[test]
fn damage_that_makes_the_database_panic_is_said_once_and_as_any_other() {
    const PAGE_BYTES: usize = 4096;
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    let catalog = cli.path("store/catalog.redb");
    let sound = std::fs::read(&catalog).unwrap();
    let mut panics = 0;
    for (number, page) in sound.chunks(PAGE_BYTES).enumerate() {
        if page.iter().all(|byte| *byte == 0) {
            continue;
        }
        let mut damaged = sound.clone();
        damaged[number * PAGE_BYTES..][..page.len()].fill(0xff);
        for words in [&["--json", "images"][..], &["images"]] {
            std::fs::write(&catalog, &damaged).unwrap();
            let output = cli.run(words);
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(!said.contains("panicked") && said.lines().count() <= 2, "page {number}: {said}");
            // Not every page is needed by this command.
            assert_eq!(said.is_empty(), output.status.success(), "page {number}: {said}");
            if !said.is_empty() && words.contains(&"--json") {
                let value: serde_json::Value = serde_json::from_str(&said).unwrap();
                assert_eq!((output.status.code(), value["error"].as_str()), (Some(6), Some("corrupt")));
                panics += usize::from(value["message"].as_str().unwrap().contains("its pages are damaged: "));
            }
        }
    }
    assert!(panics > 0, "no page made the database panic");
}

#[test]
fn a_store_without_a_folder_of_its_own_says_which_and_is_repaired() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    std::fs::remove_dir_all(cli.path("store/generations")).unwrap();
    for words in [
        &["cat", "a", "/issue"][..],
        &["import", "tree"],
        &["checkout", "a", "work"],
        &["gc"],
        &["gc", "--dry-run"],
        &["verify"],
    ] {
        let (code, said) = cli.fails(words);
        assert_eq!(code, 6, "{words:?}: {said}");
        assert!(said.contains("its folder 'generations' is missing; repair the store"), "{words:?}: {said}");
    }
    cli.ok(&["repair"]);
    assert_eq!(cli.ok(&["cat", "a", "/issue"]), "one\n");
    cli.ok(&["gc"]);
    assert!(cli.ok(&["verify"]).ends_with(": all sound\n"));
}

#[test]
fn what_was_removed_is_freed() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    let nothing = cli.ok(&["gc"]);
    assert!(
        nothing.starts_with("0 B freed of ") && nothing.ends_with("(0 packs); 1 image stays\n"),
        "{nothing}"
    );
    cli.ok(&["rm", "a"]);
    let planned = cli.ok(&["gc", "--dry-run"]);
    assert!(
        planned.contains(" would be freed of ") && planned.ends_with("(1 pack); 0 images stay\n"),
        "{planned}"
    );
    assert!(cli.path("store/packs/0000000001.pack").exists());
    let report: serde_json::Value = serde_json::from_str(&cli.ok(&["gc", "--full", "--json"])).unwrap();
    assert_eq!(
        (report["freed_packs"].as_u64(), report["waiting_packs"].as_u64()),
        (Some(1), Some(0)),
        "{report}"
    );
    assert!(!cli.path("store/packs/0000000001.pack").exists());
    cli.ok(&["import", "tree", "--tag", "a"]);
    assert!(cli.ok(&["verify"]).ends_with(": all sound\n"));
}

#[test]
fn a_store_is_repaired_and_losses_said() {
    let cli = Cli::new();
    cli.tree();
    let image = cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    // The dump has it, but not the next.
    std::fs::write(cli.path("tree/noise"), crate::roundtrip::noise(10_000, 1)).unwrap();
    let noisy = cli.ok(&["import", "tree", "--tag", "noisy", "-q"]);
    std::fs::remove_file(cli.path("store/catalog.redb")).unwrap();
    assert_eq!(cli.fails(&["images"]).0, 6);
    let output = cli.run(&["repair"]);
    assert_eq!(output.status.code(), Some(6), "a tag is lost");
    let said = String::from_utf8(output.stdout).unwrap();
    let restored = "Restored, from packs alone, without the tags that were on them:\n  image ";
    assert!(said.contains(&format!("{restored}{} of default", noisy.trim())), "{said}");
    assert!(!said.contains("no longer in the store") && !said.contains(image.trim()), "{said}");
    assert!(
        said.contains("The catalog was missing. ") && said.contains("/store/quarantine: delete it"),
        "{said}"
    );
    assert_eq!(last_line(&said), last_line(&cli.ok(&["repair"])), "it is sound now");
    assert!(cli.ok(&["inspect", "base"]).contains(image.trim()));
    let pack = cli.path("store/packs/0000000001.pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    let at =
        bytes.windows(64).position(|window| window == &crate::roundtrip::noise(10_000, 1)[..64]).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let output = cli.run(&["repair"]);
    assert_eq!(output.status.code(), Some(6));
    let [said, failure] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    let lost = format!(
        "Lost, and no longer in the store:\n  image {} of default: 1 path\n    /noise: ",
        noisy.trim()
    );
    assert!(said.contains(&format!(": 4 paths of image {}", noisy.trim())), "{said}");
    assert!(said.contains(&lost), "{said}");
    assert!(failure.contains("it was repaired and is sound now, but for what was lost"), "{failure}");
    assert!(cli.ok(&["verify"]).ends_with(": all sound\n"));
    let json: serde_json::Value = serde_json::from_str(&cli.ok(&["repair", "--json"])).unwrap();
    assert_eq!((json["catalog"].as_str(), json["images"].as_u64()), (Some("whole"), Some(2)));
}
