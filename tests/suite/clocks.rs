//! Clocks that are wrong for a moment: what is made at other moments is dated and cleaned up as if that had not been. Needs
//! `faketime`, and runs where `LAYERSTONE_SYSTEM_TESTS=1` is set.

use std::process::{Command, Output};
use std::time::Duration;

use layerstone::{CheckoutOptions, StoreOptions};

use crate::cli::{Cli, last_line};
use crate::given::{parse, reference};
use crate::system;

/// Runs a command at another time.
fn at(cli: &Cli, time: &str, words: &[&str]) -> Output {
    let real = cli.command(words);
    let mut command = Command::new("faketime");
    command.arg(time).arg(real.get_program()).args(real.get_args());
    command.current_dir(real.get_current_dir().unwrap());
    command.envs(real.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Imports a file of this content; gives the image, and what is said beside it.
fn import(cli: &Cli, content: &str, time: Option<&str>) -> (String, String) {
    std::fs::create_dir_all(cli.path("tree")).unwrap();
    std::fs::write(cli.path("tree/content"), content).unwrap();
    let words = ["import", "tree", "--tag", content, "-q"];
    let output = match time {
        Some(time) => at(cli, time, &words),
        None => cli.run(&words),
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (last_line(&text(output.stdout)).to_owned(), text(output.stderr))
}

fn json(cli: &Cli, words: &[&str]) -> serde_json::Value {
    serde_json::from_str(&cli.ok(words)).unwrap()
}

#[test]
fn one_moment_in_the_future_dates_one_image() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    let (past, _) = import(&cli, "past", Some("2001-02-03 04:05:06"));
    let (before, _) = import(&cli, "before", None);
    let (future, said) = import(&cli, "future", Some("2099-01-01"));
    assert_eq!(said, "");
    let (after, said) = import(&cli, "after", None);
    assert!(said.contains("2099-01-01") && said.lines().count() == 1, "the jump is said: {said}");
    let (last, said) = import(&cli, "last", None);
    assert_eq!(said, "", "once");

    let listed = |words: &[&str]| {
        let listed = cli.ok(&[&["images", "-q"], words].concat());
        listed.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(listed(&[]), [&last, &after, &future, &before, &past].map(String::clone), "as they were made");
    assert_eq!(listed(&["--since", "1h"]), [&last, &after, &future, &before].map(String::clone));
    assert_eq!(listed(&["--since", "2090-01-01"]), [future.as_str()]);
    assert_eq!(
        listed(&["--since", "1h", "--until", "2090-01-01"]),
        [&last, &after, &before].map(String::clone)
    );
    assert_eq!(listed(&["--until", "2002-01-01"]), [past]);

    let year = |value: &serde_json::Value| value["created"].as_str().unwrap()[..4].parse::<u64>().unwrap();
    let years: Vec<_> = json(&cli, &["images", "--json"]).as_array().unwrap().iter().map(year).collect();
    let now = years[0];
    assert_eq!(years, [now, now, 2099, now, 2001]);
    let history = json(&cli, &["history", "after", "--json"]);
    assert_eq!(year(&history[0]), now);
    let tree = json(&cli, &["tree", "--json"]);
    let shown = |id: &str| tree.as_array().unwrap().iter().find(|node| node["image"] == id).map(year);
    assert_eq!((shown(&after), shown(&future)), (Some(now), Some(2099)));
    let text = cli.ok(&["images"]);
    let line = |tag: &str| text.lines().find(|line| line.starts_with(tag)).unwrap().to_owned();
    assert!(line("future").contains("2099-01-01") && line("last").contains("seconds ago"), "{text}");
}

#[test]
fn a_removed_image_is_dated_by_the_clock() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    // From here on ids have the time of this one.
    let (future, _) = import(&cli, "future", Some("2099-01-01"));
    let (base, _) = import(&cli, "base", None);
    cli.ok(&["checkout", "base", "copy"]);
    let commit = |content: &str| {
        std::fs::write(cli.path("copy/content"), content).unwrap();
        last_line(&cli.ok(&["commit", "copy", "--tag", content, "-q"])).to_owned()
    };
    let made = [commit("one"), commit("two"), commit("three")];
    std::fs::write(cli.path("copy/content"), "four").unwrap();
    at(&cli, "2050-01-01", &["commit", "copy", "--tag", "four", "-q"]);
    std::fs::write(cli.path("copy/content"), "five").unwrap();
    cli.ok(&["commit", "copy", "--tag", "five", "-q"]);
    cli.ok(&["rm", "base", "one", "two", "four"]);
    let look = || {
        let tree = json(&cli, &["tree", "--json"]);
        let nodes = tree.as_array().unwrap();
        assert_eq!(nodes.iter().filter(|node| node["info"].is_null()).count(), 4, "{tree}");
        let now = layerstone::Moment::now().to_string();
        for node in nodes {
            let created = node["created"].as_str().unwrap();
            let expected = match node["parent"].as_str() {
                None if node["image"] == future.as_str() => "2099",
                Some(parent) if parent == made[2] => "2050",
                _ => &now[..4],
            };
            assert!(created.starts_with(expected), "{node}");
        }
        assert!(nodes.iter().any(|node| node["image"] == base.as_str()));
        for line in cli.ok(&["tree"]).lines().filter(|line| line.contains("  removed  ")) {
            assert!(line.ends_with(" ago") || line.contains("2050-01-01"), "{line}");
        }
        for words in [&["history", "five", "--json"][..], &["images", "--json"]] {
            let years = json(&cli, words)
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["created"].to_string()[1..5].to_owned())
                .collect::<Vec<_>>();
            assert!(
                years.iter().all(|year| *year == now[..4] || *year == "2099" || *year == "2050"),
                "{years:?}"
            );
        }
    };
    look();
    // From the dump a repair has it, too.
    StoreOptions::default().open(cli.path("store")).unwrap().dump_catalog().unwrap();
    std::fs::remove_file(cli.path("store/catalog.redb")).unwrap();
    cli.run(&["repair"]);
    look();
}

#[test]
fn a_checkout_of_the_future_is_forgotten_and_the_dump_written_again() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    import(&cli, "base", Some("2099-01-01"));
    for number in 0..3 {
        at(&cli, "2099-01-01", &["checkout", "base", &format!("future{number}")]);
    }
    // Later, or their inodes would be used again.
    (0..3).for_each(|number| std::fs::remove_dir_all(cli.path(&format!("future{number}"))).unwrap());
    let written = || {
        let head = std::fs::read(cli.path("store/catalog.dump")).unwrap();
        u64::from_le_bytes(head[8..16].try_into().unwrap()) / 1_000
    };
    let year_2090 = 3_786_912_000;
    assert!(written() > year_2090);
    import(&cli, "after", None);
    assert!(written() < year_2090);
    let states = || std::fs::read_dir(cli.path("store/directories")).unwrap().count();
    let before = states();
    let options = StoreOptions::default().directory_grace(Duration::ZERO);
    let own = options.open(cli.path("store")).unwrap().project(&parse("default")).unwrap();
    for number in 0..2 {
        let copy = cli.path(&format!("copy{number}"));
        own.find(&reference("base")).unwrap().check_out(copy, CheckoutOptions::default()).unwrap();
    }
    assert_eq!(states(), before + 2 - 3, "seen now at first, and then for longer than the grace");
}

#[test]
fn a_clock_before_1970_is_no_damage() {
    if !system::is_on() {
        return;
    }
    let cli = Cli::new();
    let (old, said) = import(&cli, "old", Some("1960-01-01"));
    assert_eq!(said, "");
    at(&cli, "1960-01-01", &["checkout", "old", "copy"]);
    assert_eq!(cli.ok(&["images", "-q", "--until", "1970-01-02"]).trim(), old);
}
