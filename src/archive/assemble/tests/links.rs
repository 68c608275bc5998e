//! Members that go through symbolic links of the same archive.

use super::*;

/// The directory that links lead to.
fn library() -> Vec<Member<u32>> {
    vec![directory("usr/lib"), file("usr/lib/old", 1)]
}

fn with_library(rest: Vec<Member<u32>>) -> Vec<Member<u32>> {
    library().into_iter().chain(rest).collect()
}

#[track_caller]
fn refused(members: Vec<Member<u32>>, message: &str) {
    let error = assemble(members).expect_err("was taken");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(matches!(error.subject(), Subject::ArchiveEntry(_)), "{error}");
    assert!(error.to_string().contains(message), "{error} does not say '{message}'");
}

#[test]
fn a_child_goes_where_the_link_leads() {
    for target in ["usr/lib", "/usr/lib", "./usr//lib/", "usr/../usr/lib", "/usr/lib/../lib/."] {
        assert_eq!(
            shown(with_library(vec![symlink("lib", target), file("lib/y", 2), file("lib/deep/z", 3)])),
            [
                "//".to_owned(),
                format!("/lib -> {target}"),
                "/usr/".into(),
                "/usr/lib/+".into(),
                "/usr/lib/deep/".into(),
                "/usr/lib/deep/z 3".into(),
                "/usr/lib/old 1".into(),
                "/usr/lib/y 2".into()
            ]
        );
    }
    // To a directory that no entry named, and to the root.
    assert_eq!(
        shown(vec![file("a/b/c", 1), symlink("l", "a/b"), symlink("r", "/"), file("l/d", 2), file("r/e", 3)]),
        ["//", "/a/", "/a/b/", "/a/b/c 1", "/a/b/d 2", "/e 3", "/l -> a/b", "/r -> /"]
    );
}

#[test]
fn chains_of_links_and_links_in_links() {
    let chain = vec![
        symlink("one", "two"),
        symlink("two", "usr/three"),
        symlink("usr/three", "../four/lib"),
        symlink("four", "/usr"),
        file("one/y", 2),
    ];
    let listed = shown(with_library(chain));
    assert!(listed.contains(&"/usr/lib/y 2".to_owned()), "{listed:?}");
    // `..` goes up from where the link before it leads.
    let listed = shown(with_library(vec![
        symlink("l", "usr/lib"),
        symlink("m", "l/../bin"),
        directory("usr/bin"),
        file("m/y", 2),
    ]));
    assert!(listed.contains(&"/usr/bin/y 2".to_owned()), "{listed:?}");
    let links = |count: u32| {
        let next = |number| if number == count { "usr/lib".to_owned() } else { format!("l{}", number + 1) };
        let links = (1..=count).map(|number| symlink(&format!("l{number}"), &next(number)));
        with_library(links.chain([file("l1/y", 2)]).collect())
    };
    assert!(shown(links(40)).contains(&"/usr/lib/y 2".to_owned()));
    refused(links(41), "/l1, which leads through more than 40 links");
}

#[test]
fn a_way_that_leads_to_no_directory_is_refused() {
    for (target, message) in [
        (
            "nowhere",
            "archive entry '/lib/y': goes through the link /lib, which leads to /nowhere, where nothing is",
        ),
        ("usr/lib/nowhere/..", "to /usr/lib/nowhere, where nothing is"),
        ("usr/lib/old", "to /usr/lib/old, which is no directory"),
        ("usr/lib/old/x", "to /usr/lib/old, which is no directory"),
        ("lib", "through more than 40 links"),
        ("usr/../lib", "through more than 40 links"),
        ("..", "out of the tree"),
        ("../usr/lib", "out of the tree"),
        ("/../usr/lib", "out of the tree"),
        ("usr/lib/../../../usr/lib", "out of the tree"),
    ] {
        for path in ["lib/y", "lib/deep/y"] {
            let message = message.replace("/lib/y'", &format!("/{path}'"));
            refused(with_library(vec![symlink("lib", target), file(path, 2)]), &message);
            refused(with_library(vec![symlink("lib", target), directory(path)]), &message);
        }
        // By itself a link is data.
        let listed = shown(with_library(vec![symlink("lib", target)]));
        assert!(listed.contains(&format!("/lib -> {target}")), "{listed:?}");
    }
    refused(vec![symlink("a", "b"), symlink("b", "a"), file("a/y", 1)], "through more than 40 links");
    // The directory that would be the link's comes too late.
    refused(vec![symlink("lib", "usr/lib"), file("lib/y", 1), directory("usr/lib")], "where nothing is yet");
    let far = format!("{}x", "d/".repeat(1000));
    refused(
        vec![
            directory(&far),
            symlink("l", &far),
            directory(&format!("{far}/{far}/y")),
            symlink("m", &format!("{far}/{far}")),
            file(&format!("m/{far}"), 1),
        ],
        "4095 bytes",
    );
}

#[test]
fn a_directory_over_a_link_to_a_directory_keeps_both() {
    let expected = ["//", "/lib -> usr/lib", "/usr/", "/usr/lib/+", "/usr/lib/old 1", "/usr/lib/y 2"];
    let mut over = directory("lib");
    over.mode = 0o711;
    let members = with_library(vec![symlink("lib", "usr/lib"), over, file("lib/y", 2)]);
    assert_eq!(shown(members.clone()), expected);
    let library =
        assemble(members).unwrap().into_iter().find(|placed| *placed.path() == path("usr/lib")).unwrap();
    assert!(matches!(library, Placed::Inode { member, .. } if member.mode == 0o700), "its attributes stay");
    // A link that leads to no directory is replaced, as all programs do.
    for target in ["nowhere", "usr/lib/old", "lib", "../x"] {
        assert_eq!(
            shown(with_library(vec![symlink("lib", target), directory("lib"), file("lib/y", 2)])),
            ["//", "/lib/+", "/lib/y 2", "/usr/", "/usr/lib/+", "/usr/lib/old 1"]
        );
    }
}

#[test]
fn what_is_below_a_directory_is_not_lost_to_a_link() {
    let message = "is a symbolic link over a directory that already has /lib/y";
    refused(with_library(vec![file("lib/y", 2), symlink("lib", "usr/lib")]), message);
    refused(with_library(vec![directory("lib"), file("lib/y", 2), symlink("lib", "usr/lib")]), message);
    assert_eq!(
        shown(with_library(vec![directory("lib"), symlink("lib", "usr/lib"), file("lib/y", 2)])),
        ["//", "/lib -> usr/lib", "/usr/", "/usr/lib/+", "/usr/lib/old 1", "/usr/lib/y 2"],
        "an empty directory loses nothing"
    );
}

#[test]
fn the_last_part_of_a_name_is_replaced_and_not_followed() {
    assert_eq!(
        shown(vec![file("f", 1), symlink("s", "f"), file("s", 2), symlink("t", "f"), symlink("t", "s")]),
        ["//", "/f 1", "/s 2", "/t -> s"]
    );
}

#[test]
fn hard_links_go_through_links_on_the_way() {
    assert_eq!(
        shown(with_library(vec![
            symlink("lib", "/usr/lib"),
            link("h", "lib/old"),
            link("lib/i", "usr/lib/old")
        ])),
        [
            "//",
            "/h 1 & /usr/lib/i & /usr/lib/old",
            "/lib -> /usr/lib",
            "/usr/",
            "/usr/lib/+",
            "/usr/lib/i = /h",
            "/usr/lib/old = /h"
        ]
    );
    // To itself by another name.
    assert_eq!(
        shown(with_library(vec![symlink("lib", "usr/lib"), link("lib/old", "usr/lib/old")])),
        ["//", "/lib -> usr/lib", "/usr/", "/usr/lib/+", "/usr/lib/old 1"]
    );
    refused(
        with_library(vec![symlink("lib", ".."), link("h", "lib/old")]),
        "archive entry '/h': is a hard link whose target goes through the link /lib, which leads out of the tree",
    );
    refused(with_library(vec![symlink("lib", "usr/lib"), link("h", "lib/none")]), "no earlier entry");
}

/// However long a way is, it costs a bounded number of looks at the tree.
#[test]
fn a_way_takes_few_looks() {
    let looks = |start: &str, links: &[(&str, String)]| {
        let mut assembly = Assembly::<u32>::new(Limits::default());
        for (at, target) in links {
            assembly.add(symlink(at, target)).unwrap();
        }
        assembly.add(directory(&format!("d{}", "/d".repeat(1000)))).unwrap();
        let mut looks = 0;
        let find = |path: &TreePath| {
            looks += 1;
            Ok(assembly.find(path))
        };
        (route(&path(start), &path(start), find).is_ok(), looks)
    };
    let deep = format!("d{}", "/d".repeat(1000));
    assert_eq!(looks(&format!("{deep}/y"), &[]), (true, 1));
    assert_eq!(looks("l/y", &[("l", deep.clone())]), (true, 3));
    assert_eq!(looks("l/y", &[("l", format!("{deep}{}", "/..".repeat(900)))]), (true, 3));
    assert_eq!(looks("l/y", &[("l", "d/d/../..".to_owned() + &"/d/..".repeat(600))]), (false, 41));
    let chain: Vec<_> = (0..40)
        .map(|number| (format!("l{number}"), format!("{deep}/../{}l{}", "../".repeat(1000), number + 1)))
        .collect();
    let chain: Vec<_> = chain.iter().map(|(at, target)| (at.as_str(), target.clone())).collect();
    assert_eq!(looks("l0/y", &chain), (false, 41));
}
