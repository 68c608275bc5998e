//! Images from the command line: checkouts that share files, layers, merges and lineage.

use std::os::unix::fs::MetadataExt as _;

use super::{Cli, last_line};

#[test]
fn a_second_checkout_says_what_it_took_from_the_cache() {
    let cli = Cli::new();
    cli.tree();
    std::fs::write(cli.path("tree/shared"), "more than an entry holds; ".repeat(10)).unwrap();
    cli.ok(&["import", "tree", "--tag", "a"]);
    let check_out = |to| cli.ok(&["checkout", "a", to, "--cache", "cache", "--sharing", "hard-link"]);
    assert!(check_out("one").ends_with(" in files, in one\n"));
    assert!(check_out("other").ends_with(" in files, in other; 1 file from the cache\n"));
    let inode = |path| std::fs::metadata(cli.path(path)).unwrap().ino();
    assert_eq!(inode("one/shared"), inode("other/shared"));
    assert_eq!(cli.fails(&["checkout", "a", "third", "--sharing", "hard-link"]).0, 2);
}

#[test]
fn layers_are_applied_images_merged_and_their_lineage_shown() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "base", "-q"]);
    let layer = |name: &str, files: &[(&str, &str)]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        std::fs::write(cli.path(name), tar.into_inner().unwrap()).unwrap();
    };
    layer("ours.tar", &[("etc/.wh.motd", ""), ("etc/new", "new\n"), ("issue", "ours\n")]);
    layer("theirs.tar", &[("srv/theirs", "t\n")]);
    layer("other.tar", &[("issue", "other\n")]);
    let commit =
        |name: &str, tag: &str| cli.ok(&["commit", "--layer", name, "--base", "base", "--tag", tag, "-q"]);
    let [ours, theirs, _] = [("ours.tar", "ours"), ("theirs.tar", "theirs"), ("other.tar", "other")]
        .map(|(name, tag)| commit(name, tag).trim().to_owned());
    assert_eq!(cli.ok(&["diff", "base", "ours"]), "D /etc/motd\nA /etc/new\nM /issue  (content,mtime)\n");

    let merged = cli.ok(&["merge", "ours", "theirs", "--tag", "merged"]);
    assert_eq!(cli.ok(&["cat", last_line(&merged), "/srv/theirs"]), "t\n");
    assert_eq!(cli.ok(&["cat", "merged", "/issue"]), "ours\n");
    let output = cli.run(&["merge", "ours", "other"]);
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()),
        (Some(4), "C /issue\n")
    );
    let output = cli.run(&["merge", "ours", "other", "--json"]);
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, serde_json::json!({ "conflicts": [{ "path": "/issue" }] }));
    let (code, said) =
        cli.fails(&["commit", "--layer", "ours.tar", "--base", "base", "--max-layer-bytes", "5"]);
    assert!(code == 8 && said.contains("limit is 5"), "{said}");
    assert_eq!(cli.fails(&["commit", "--layer", "tree", "--base", "base"]).0, 2);
    assert_eq!(cli.fails(&["commit", "--layer", "ours.tar"]).0, 2);
    assert_eq!(cli.fails(&["commit", "tree", "--upper", "tree", "--base", "base"]).0, 2);

    let shown = cli.ok(&["tree"]);
    let drawn: Vec<_> = shown.lines().map(|line| line.split_once(' ').unwrap().0).collect();
    // The one that was merged into has a child; of four the last is right below.
    assert_eq!(drawn, ["●", "├─●", "│", "├─●", "●"], "{shown}");
    assert!(shown.lines().nth(1).unwrap().contains(&format!("{ours}  ours  +")), "{shown}");
    let dot = cli.ok(&["tree", "theirs", "--dot"]);
    assert!(dot.starts_with("digraph") && dot.contains(&theirs) && !dot.contains("->"), "{dot}");
    let nodes: serde_json::Value = serde_json::from_str(&cli.ok(&["tree", "ours", "--json"])).unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 2);
}
