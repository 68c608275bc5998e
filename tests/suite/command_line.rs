//! The command line as people and their scripts meet it: lists, limits, units, words of other programs, help.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::cli::{Cli, last_line};
use crate::system;

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Images of different content under these tags.
fn images(cli: &Cli, tags: &[&str]) -> Vec<String> {
    cli.tree();
    let import = |tag: &&str| {
        std::fs::write(cli.path("tree/issue"), tag).unwrap();
        cli.ok(&["import", "tree", "--tag", tag, "-q"]).trim().to_owned()
    };
    tags.iter().map(import).collect()
}

#[test]
fn a_list_is_done_as_much_as_it_can_be() {
    let cli = Cli::new();
    let ids = images(&cli, &["a", "b", "c", "d"]);
    let output = cli.run(&["rm", "a", "nope", "b", "other"]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("untagged a\nremoved {}\nuntagged b\nremoved {}\n", ids[0], ids[1]));
    let failures = String::from_utf8(output.stderr).unwrap();
    let named: Vec<_> = failures.lines().map(|line| line.split('\'').nth(1).unwrap()).collect();
    assert_eq!(named, ["nope", "other"], "{failures}");

    let output = cli.run(&["rm", "nope", "c", "other", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let done = json_of(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(done, json!([{ "name": "c", "untagged": ["c"], "removed": ids[2] }]));
    let failure = json_of(&String::from_utf8(output.stderr).unwrap());
    assert_eq!(failure["error"], "not_found");
    assert!(failure["message"].as_str().unwrap().contains("'nope'"), "{failure}");
    assert_eq!(failure["others"].as_array().unwrap().len(), 1, "{failure}");
    assert!(failure["others"][0]["message"].as_str().unwrap().contains("'other'"), "{failure}");

    // The first failure gives the code: the image has two tags.
    cli.ok(&["tag", "d", "e"]);
    assert_eq!(cli.run(&["rm", &ids[3], "nope"]).status.code(), Some(4));
    assert_eq!(cli.run(&["rm", "nope", &ids[3]]).status.code(), Some(3));
    let output = cli.run(&["inspect", "nope", "d"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(json_of(&String::from_utf8(output.stdout).unwrap()).as_array().unwrap().len(), 1);
    let output = cli.run(&["untag", "d", "nope", "e"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"untagged d\nuntagged e\n"[..]));
}

#[test]
fn projects_and_workspaces_go_as_lists() {
    let cli = Cli::new();
    images(&cli, &["a"]);
    let made = json_of(&cli.ok(&["project", "create", "p", "--json"]));
    assert_eq!((&made["name"], &made["image_count"]), (&json!("p"), &json!(0)));
    cli.ok(&["project", "create", "q"]);
    let limited = json_of(&cli.ok(&["project", "limit", "q", "--max-layer-bytes", "2MiB", "--json"]));
    assert_eq!(limited["limits"]["max_layer_bytes"], 2 << 20);
    let output = cli.run(&["project", "rm", "p", "nope", "q", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        json_of(&String::from_utf8(output.stdout).unwrap()),
        json!([{ "name": "p" }, { "name": "q" }])
    );

    for name in ["w", "x"] {
        cli.ok(&["workspace", "create", "a", "--copy", "--name", name]);
    }
    let output = cli.run(&["workspace", "discard", "w", "nope", "x", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(
        json_of(&String::from_utf8(output.stdout).unwrap()),
        json!([{ "name": "w", "left_over": null }, { "name": "x", "left_over": null }])
    );
}

#[test]
fn a_wrong_name_in_a_list_changes_nothing() {
    let cli = Cli::new();
    images(&cli, &["a", "b"]);
    for words in [
        &["rm", "a", "x//y"][..],
        &["untag", "a", "x//y"],
        &["tag", "a", "c", "x//y"],
        &["project", "rm", "default", "x//y"],
    ] {
        assert_eq!(cli.fails(words).0, 2, "{words:?}");
    }
    assert_eq!(cli.ok(&["images"]).lines().count(), 3);
}

#[test]
fn programs_get_all_images_and_people_the_first_hundred() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "t"]);
    cli.ok(&["checkout", "t", "work"]);
    for number in 0..100 {
        std::fs::write(cli.path("work/issue"), number.to_string()).unwrap();
        cli.ok(&["commit", "work", "--tag", &format!("t{number}"), "-q"]);
    }
    let shown = cli.run(&["images"]);
    assert_eq!(String::from_utf8(shown.stdout).unwrap().lines().count(), 1 + 100);
    assert!(String::from_utf8(shown.stderr).unwrap().contains("-n 0 shows all"));
    for words in [&["images", "-q"][..], &["images", "--json"], &["images", "-q", "--json"]] {
        let output = cli.run(words);
        let text = String::from_utf8(output.stdout).unwrap();
        let found = if words.contains(&"--json") {
            json_of(&text).as_array().unwrap().len()
        } else {
            text.lines().count()
        };
        assert_eq!((found, output.stderr.as_slice()), (101, &b""[..]), "{words:?}");
        let limited = cli.ok(&[words, &["-n", "1"]].concat());
        let is_one = limited.lines().count() == 1 || json_of(&limited).as_array().unwrap().len() == 1;
        assert!(is_one, "{words:?}: {limited}");
    }
    assert_eq!(cli.ok(&["images", "-n", "0"]).lines().count(), 1 + 101);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let cli = Cli::new();
    cli.tree();
    std::fs::write(cli.path("tree/big"), crate::roundtrip::noise(1 << 20, 1)).unwrap();
    for number in 0..3000 {
        std::fs::write(cli.path(&format!("tree/{}{number}", "long-name-".repeat(20))), "").unwrap();
    }
    cli.ok(&["import", "tree", "--tag", "a"]);
    std::fs::create_dir(cli.path("empty")).unwrap();
    cli.ok(&["import", "empty", "--tag", "empty"]);
    for words in [
        &["export", "a"][..],
        &["export", "a", "-o", "/dev/stdout"],
        &["cat", "a", "/big"],
        &["ls", "a"],
        &["ls", "a", "--json"],
        &["diff", "empty", "a"],
        &["diff", "empty", "a", "--json"],
    ] {
        let mut command = cli.command(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
        assert!(output.status.success(), "{words:?}: {:?}", output.status);
    }
    // What is to be done is done, and what fails fails, though nobody reads of it.
    let mut command = cli.command(&["rm", "a", "nope", "empty"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert_eq!(cli.ok(&["images", "-q"]), "");
}

#[test]
fn a_tar_is_not_written_to_a_terminal_unless_that_is_asked_for() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    images(&cli, &["a"]);
    let terminal = |command: &str| {
        let program = format!("{} {command}", env!("CARGO_BIN_EXE_layerstone"));
        let mut script = std::process::Command::new("script");
        script.args(["--quiet", "--return", "--command", &program, "/dev/null"]);
        script.env("LAYERSTONE_STORE", cli.path("store")).stdin(Stdio::null());
        script.output().unwrap()
    };
    let refused = terminal("export a");
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stdout).unwrap();
    assert!(said.lines().count() == 1 && said.contains("terminal") && said.contains("--output"), "{said}");
    assert!(terminal("export a -o -").stdout.len() > 1024);
}

#[test]
fn bytes_have_units_and_a_refusal_has_figures() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    for (unit, bytes) in [("1kB", 1000), ("1KiB", 1024), ("1K", 1024), ("1.5kB", 1500)] {
        cli.ok(&["checkout", "a", "work"]);
        std::fs::write(cli.path("work/issue"), vec![b'x'; bytes]).unwrap();
        cli.ok(&["commit", "work", "--max-layer-bytes", unit]);
        std::fs::write(cli.path("work/issue"), vec![b'y'; bytes + 1]).unwrap();
        let (code, said) = cli.fails(&["commit", "work", "--max-layer-bytes", unit]);
        let figures = [format!("{} bytes", bytes + 1), format!("limit is {bytes};")];
        assert!(code == 8 && figures.iter().all(|figure| said.contains(figure)), "{unit}: {said}");
        std::fs::remove_dir_all(cli.path("work")).unwrap();
    }
    // What is new and much is refused before it is read to its end.
    cli.ok(&["checkout", "a", "work"]);
    std::fs::write(cli.path("work/noise"), crate::roundtrip::noise(3 << 20, 1)).unwrap();
    let (code, said) = cli.fails(&["commit", "work", "--max-layer-bytes", "1MB"]);
    assert!(code == 8 && said.contains("adds at least ") && said.contains("limit is 1000000"), "{said}");
    assert_eq!(cli.fails(&["import", "tree", "--max-bytes", "1XB"]).0, 2);
    assert_eq!(cli.fails(&["import", "tree", "--max-bytes", "8B"]).0, 8);
    cli.ok(&["import", "tree", "--max-bytes", "1kB"]);
}

#[test]
fn what_is_missing_is_called_neither_file_nor_directory() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    for words in [
        &["import", "missing.tar"][..],
        &["import", "missing"],
        &["import", "missing.tar", "--format", "tar"],
        &["commit", "--base", "a", "--layer", "missing.tar"],
    ] {
        let (code, said) = cli.fails(words);
        assert!(code == 3 && said.contains("No such file or directory"), "{words:?}: {said}");
    }
}

#[test]
fn words_of_other_programs_are_taken_or_answered() {
    let cli = Cli::new();
    let ids = images(&cli, &["a", "b"]);
    for words in [&["images", "ls"][..], &["image", "ls"], &["image", "list"], &["images"]] {
        assert_eq!(cli.ok(&[words, &["-q"]].concat()).lines().count(), 2, "{words:?}");
    }
    assert!(cli.ok(&["ps"]).starts_with("WORKSPACE"));
    assert!(cli.ok(&["image", "inspect", "a"]).contains(&ids[0]));
    cli.ok(&["image", "tag", "a", "c"]);
    cli.ok(&["rmi", "a", "c"]);
    cli.ok(&["image", "rm", "b"]);
    for (word, instead) in [
        ("pull", "import"),
        ("push", "export"),
        ("save", "export"),
        ("load", "import"),
        ("build", "run"),
        ("mount", "workspace create"),
        ("prune", "gc"),
        ("exec", "run"),
        ("log", "history"),
        ("list", "images"),
    ] {
        let (code, said) = cli.fails(&[word, "x"]);
        assert_eq!(code, 2, "{word}");
        assert!(said.contains(&format!("'layerstone {instead}")) && !said.contains("tip:"), "{word}: {said}");
    }
    // A suggestion is a likely slip, or is not made.
    assert!(cli.fails(&["chekcout"]).1.contains("'checkout'"));
    for word in ["frobnicate", "lint", "format", "upgrade", "reset"] {
        assert!(!cli.fails(&[word]).1.contains("tip:"), "{word}");
    }
    assert!(cli.fails(&["import", "x", "--taag", "y"]).1.contains("'--tag'"));
}

#[test]
fn the_program_alone_shows_its_help() {
    let cli = Cli::new();
    for (words, command) in
        [(&[][..], "Usage: layerstone [OPTIONS]"), (&["project"], "Usage: layerstone project")]
    {
        let help = cli.ok(words);
        assert!(help.contains(command) && help.contains("\nGlobal options:\n"), "{words:?}: {help}");
        assert!(help.contains("Examples:\n"), "{words:?}: {help}");
    }
    assert_eq!(last_line(&cli.ok(&["rm", "--help"])).split(' ').nth(2), Some("layerstone"));
    assert!(!cli.path("store").exists());
}

#[test]
fn json_has_paths_as_they_are_and_commands_take_them() {
    let cli = Cli::new();
    std::fs::create_dir(cli.path("tree")).unwrap();
    let odd = OsStr::from_bytes(b"caf\xe9");
    std::fs::write(cli.path("tree").join(odd), "odd\n").unwrap();
    std::fs::write(cli.path("tree/a\nb\\c"), "text\n").unwrap();
    std::os::unix::fs::symlink(odd, cli.path("tree/link")).unwrap();
    std::fs::hard_link(cli.path("tree").join(odd), cli.path("tree/other")).unwrap();
    cli.ok(&["import", "tree", "--tag", "a"]);
    let listed = json_of(&cli.ok(&["ls", "a", "--json"]));
    let field = |index: usize, name: &str| listed[index][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(field(0, "path"), "/a\nb\\c");
    assert!(listed[0].get("path_bytes").is_none(), "{listed}");
    assert_eq!(cli.ok(&["cat", "a", &field(0, "path")]), "text\n");
    assert_eq!((field(1, "path"), field(1, "path_bytes")), ("/caf\u{fffd}".into(), "2f636166e9".into()));
    assert_eq!(cli.ok(&["cat", "a", "--path-bytes", &field(1, "path_bytes")]), "odd\n");
    assert_eq!(json_of(&cli.ok(&["ls", "a", "--json", "--path-bytes", "636166E9"]))[0], listed[1]);
    assert_eq!((field(2, "target"), field(2, "target_bytes")), ("caf\u{fffd}".into(), "636166e9".into()));
    assert_eq!(field(3, "hard_link_to_bytes"), "2f636166e9");
    assert_eq!(field(1, "mode"), "0644");
    for wrong in ["2f6", "xy", "2f2e2e", "00"] {
        assert_eq!(cli.fails(&["cat", "a", "--path-bytes", wrong]).0, 2, "{wrong}");
    }
    let failure = cli.run(&["cat", "a", "--path-bytes", "ff0a", "--json"]);
    let failure = json_of(&String::from_utf8(failure.stderr).unwrap());
    assert_eq!((&failure["path"], &failure["path_bytes"]), (&json!("/\u{fffd}\n"), &json!("2fff0a")));

    // Differences and conflicts have the same form.
    for (place, text) in [("ours", "1\n"), ("theirs", "22\n")] {
        cli.ok(&["checkout", "a", place]);
        std::fs::write(cli.path(place).join(odd), text).unwrap();
        std::fs::write(cli.path(place).join("a\nb\\c"), text).unwrap();
        cli.ok(&["commit", place, "--tag", place]);
    }
    let paths = |value: &Value| -> Vec<(String, String)> {
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| (text(entry, "path"), text(entry, "path_bytes")))
            .collect()
    };
    let expected = [("/a\nb\\c".to_owned(), String::new()), ("/caf\u{fffd}".into(), "2f636166e9".into())];
    assert_eq!(paths(&json_of(&cli.ok(&["diff", "a", "ours", "--json"]))), expected);
    let output = cli.run(&["merge", "ours", "theirs", "--json"]);
    let merged = json_of(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(paths(&merged["conflicts"])[..2], expected, "{merged}");
}

#[test]
fn what_was_not_looked_at_is_null() {
    let cli = Cli::new();
    images(&cli, &["a"]);
    let verified = json_of(&cli.ok(&["verify", "--quick", "--json"]));
    for field in ["objects", "stored_bytes", "bytes"] {
        assert!(verified[field].is_null(), "{verified}");
    }
    std::fs::create_dir(cli.path("empty")).unwrap();
    cli.ok(&["import", "empty", "--tag", "empty"]);
    let differences = json_of(&cli.ok(&["diff", "empty", "a", "--json"]));
    let added = differences.as_array().unwrap().iter().find(|entry| entry["path"] == "/issue").unwrap();
    assert_eq!((&added["size_before"], &added["size_after"]), (&Value::Null, &json!(1)));
    let exported = json_of(&cli.ok(&["export", "a", "-o", "a.tar", "--json"]));
    assert_eq!((exported["image"].is_string(), &exported["left_out"]), (true, &json!([])));
}

#[test]
fn with_json_notes_are_fields_and_standard_error_stays_empty() {
    let cli = Cli::new();
    cli.tree();
    let socket = std::os::unix::net::UnixListener::bind(cli.path("tree/socket")).unwrap();
    cli.ok(&["import", "tree", "--tag", "a"]);
    for words in [
        &["import", "tree", "-m", "again"][..],
        &["export", "a", "-o", "a.tar"],
        &["images", "-n", "1"],
        &["workspace", "create", "a", "--copy", "--name", "w"],
        &["workspace", "commit", "w", "-m", "again", "--keep"],
        &["workspace", "discard", "w"],
    ] {
        let output = cli.run(&[words, &["--json"]].concat());
        assert!(output.status.success(), "{words:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
        let report = json_of(&String::from_utf8(output.stdout).unwrap());
        match words[..2] {
            ["export", _] => assert_eq!(report["left_out"], json!([{ "path": "/socket" }])),
            ["workspace", "create"] => assert_eq!(report["why_copy"], Value::Null),
            ["workspace", "discard"] => assert_eq!(report, json!([{ "name": "w", "left_over": null }])),
            _ => {}
        }
    }
    drop(socket);
}

/// Each item has its turn, and what an earlier one removed is not there any more.
#[test]
fn an_item_that_is_named_twice_is_done_once() {
    let cli = Cli::new();
    let ids = images(&cli, &["a", "b", "c", "d"]);
    cli.ok(&["tag", "d", "e"]);
    for name in ["v", "w"] {
        cli.ok(&["workspace", "create", "d", "--copy", "--name", name]);
        cli.ok(&["project", "create", name]);
    }
    let removed = |tags: &[&str], id: &str| {
        let tags: Vec<_> = tags.iter().map(|tag| format!("untagged {tag}\n")).collect();
        format!("{}removed {id}\n", tags.concat())
    };
    for (words, expected, named, printed) in [
        (&["rm", "a", "nope", "a"][..], 3, &["nope", "a"][..], removed(&["a"], &ids[0])),
        (&["rm", "b", &ids[1]], 3, &[&ids[1]], removed(&["b"], &ids[1])),
        (&["rm", &ids[2], "c"], 3, &["c"], removed(&["c"], &ids[2])),
        (&["rm", &ids[3], "nope"], 4, &[&ids[3], "nope"], String::new()),
        (&["untag", "e", "nope", "e", "other"], 3, &["nope", "e", "other"], "untagged e\n".to_owned()),
        (
            &["workspace", "discard", "v", "nope", "v", "w"],
            3,
            &["nope", "v"],
            "discarded v\ndiscarded w\n".to_owned(),
        ),
        (&["project", "rm", "v", "nope", "v", "w"], 3, &["nope", "v"], "removed v\nremoved w\n".to_owned()),
    ] {
        let output = cli.run(words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(expected), "{words:?}: {said}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), printed, "{words:?}");
        assert_eq!(said.lines().count(), named.len(), "{words:?}: {said}");
        assert!(said.lines().zip(named).all(|(line, name)| line.contains(name)), "{words:?}: {said}");
    }
    let shown = cli.run(&["inspect", "d", "nope", &ids[3], "d"]);
    let shown_images = json_of(&String::from_utf8(shown.stdout).unwrap());
    assert_eq!((shown.status.code(), shown_images.as_array().unwrap().len()), (Some(3), 3));
    cli.ok(&["tag", "d", "x", "x", "y"]);
    assert_eq!(cli.ok(&["untag", "--all", "d"]), "untagged d\nuntagged x\nuntagged y\n");
}
