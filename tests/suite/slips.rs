//! Words and options of other programs that this one does not have: each is answered by what does its work here.

use crate::cli::Cli;

/// Options of `run`, and part of the answer.
const RUN: &[(&[&str], &str)] = &[
    (&["-it", "x", "sh"], "the terminal"),
    (&["--rm", "-it", "x", "sh"], "the terminal"),
    (&["-ti", "x"], "the terminal"),
    (&["--interactive", "x", "sh"], "the terminal"),
    (&["x", "-i", "sh"], "the terminal"),
    (&["-d", "x", "sh"], "background"),
    (&["--detach=true", "x", "sh"], "background"),
    (&["-v", "a:b", "x", "sh"], "workspace create"),
    (&["-va:b", "x", "sh"], "workspace create"),
    (&["--volumes-from", "y", "x", "sh"], "workspace create"),
    (&["--mount", "type=bind", "x", "sh"], "workspace create"),
    (&["-F", "a:b", "x", "sh"], "workspace create"),
    (&["-p", "80:80", "x", "sh"], "host's network"),
    (&["--network=host", "x", "sh"], "host's network"),
    (&["--dns-search", "y", "x", "sh"], "host's network"),
    (&["--hostname", "y", "x", "sh"], "--name"),
    (&["-u", "root", "x", "sh"], "setpriv"),
    (&["--entrypoint", "sh", "x"], "after the image"),
    (&["x"], "after the image"),
    (&["--env-file", "y", "x", "sh"], "--env NAME"),
    (&["--cap-add", "ALL", "x", "sh"], "capabilities"),
    (&["--privileged", "x", "sh"], "capabilities"),
    (&["--memory", "1g", "x", "sh"], "ulimit"),
    (&["--cpus", "2", "x", "sh"], "ulimit"),
    (&["--timeout", "2", "x", "sh"], "timeout SECONDS"),
    (&["--restart", "always", "x", "sh"], "runs once"),
    (&["--cidfile", "y", "x", "sh"], "--id-file"),
    (&["--label", "a=b", "x", "sh"], "--message"),
    (&["-D", "x", "sh"], "--disposable"),
    (&["-s", "echo a"], "sh -c"),
];

/// Other commands, and part of the answer.
const OTHERS: &[(&[&str], &str)] = &[
    (&["import", "x.tar", "name:1"], "--tag NAME"),
    (&["image", "import", "x.tar", "name:1"], "--tag NAME"),
    (&["import", "-c", "CMD sh", "x.tar"], "no configuration"),
    (&["commit", "work", "name:1"], "--tag NAME"),
    (&["commit", "-a", "me", "work"], "--message"),
    (&["export", "x", "x.tar"], "--output FILE"),
    (&["workspace", "create", "x", "w"], "--name NAME"),
    (&["init", "store"], "--store DIR"),
    (&["verify", "x"], "whole store"),
    (&["import", "http://localhost/x.tar"], "layerstone import -"),
    (&["import", "docker://alpine"], "registries are not supported"),
    (&["ps", "-a"], "shown in full"),
    (&["ps", "-q"], "--json"),
    (&["images", "--digests"], "shown in full"),
    (&["images", "--filter", "dangling=true"], "--prefix"),
    (&["image", "ls", "-f", "x"], "--prefix"),
    (&["images", "--format", "json"], "--json"),
    (&["images", "import", "x"], "'layerstone import'"),
    (&["inspect", "-f", "{{.Id}}", "x"], "--json"),
    (&["history", "--no-trunc", "x"], "shown in full"),
    (&["rmi", "-a"], "images --all --quiet"),
    (&["rmi", "--no-prune", "x"], "leave it out"),
    (&["image", "rm", "-i", "x"], "leave it out"),
    (&["tag", "-f", "x", "y"], "moves"),
    (&["gc", "-a"], "--full"),
    (&["gc", "--force"], "nothing is asked"),
    (&["workspace", "rm", "-f", "w"], "nothing is asked"),
    (&["verify", "--repair"], "'layerstone repair'"),
    (&["repair", "--dry-run"], "'layerstone verify'"),
    (&["images", "-v"], "--progress plain"),
    (&["tree", "--root", "/x"], "--store"),
    (&["workspace", "start", "w"], "workspace path"),
    (&["workspace", "new", "x"], "workspace create"),
    (&["workspace", "exec", "w", "sh"], "workspace path"),
    (&["project", "new", "x"], "project create"),
    (&["project", "use", "x"], "--project"),
    (&["workspaces"], "workspace ls"),
    (&["projects"], "project ls"),
    (&["tags"], "'layerstone images'"),
    (&["container", "rm", "x"], "no containers"),
    (&["volume", "create", "x"], "workspace create"),
    (&["use", "x"], "workspace create"),
    (&["session", "branch", "x"], "workspace create"),
    (&["rollback", "1"], "history"),
    (&["file", "edit", "/x"], "workspace create"),
    (&["op", "ls"], "workspace ls"),
    (&["operation", "ls"], "workspace ls"),
    (&["grep", "x"], "| grep TEXT"),
    (&["cd", "/etc"], "'layerstone ls IMAGE PATH'"),
    (&["env", "A=B"], "run --env"),
    (&["images", "--since", "-1d"], "leave that out: 1d"),
    (&["commit", "x", "--max-layer-bytes", "-1"], "a number of bytes"),
    (&["import", "x", "--timeout", "0"], "leave the option out"),
    (&["image", "prune"], "'layerstone gc'"),
    (&["image", "save", "x"], "'layerstone export"),
];

#[test]
fn what_other_programs_take_is_answered_by_what_to_do_instead() {
    let cli = Cli::new();
    let run = RUN.iter().map(|(words, answer)| ([&["run"], *words].concat(), *answer, 125));
    let others = OTHERS.iter().map(|(words, answer)| (words.to_vec(), *answer, 2));
    for (words, answer, expected) in run.chain(others) {
        let (code, said) = cli.fails(&words);
        assert_eq!(code, expected, "{words:?}: {said}");
        let first = said.lines().next().unwrap();
        assert!(first.contains(answer) && !said.contains("tip:"), "{words:?}: {said}");
    }
    // What nobody knows is refused without advice that would mislead.
    for words in [&["run", "--bogus", "x", "sh"][..], &["rm", "-z"], &["ls", "x", "-z"]] {
        let (_, said) = cli.fails(words);
        assert!(said.lines().next().unwrap().ends_with(" found"), "{words:?}: {said}");
    }
    assert!(!cli.path("store").exists());
}

#[test]
fn short_and_other_names_of_commands_are_taken() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["import", "tree", "--tag", "a"]);
    cli.ok(&["ws", "create", "a", "--copy", "--name", "w"]);
    assert_eq!(cli.ok(&["workspace", "delete", "w"]), "discarded w\n");
    cli.ok(&["tag", "a", "b", "c"]);
    cli.ok(&["tag", "-U", "b"]);
    cli.ok(&["tag", "--rm", "c"]);
    assert_eq!(cli.ok(&["image", "list"]), cli.ok(&["images", "list"]));
}
