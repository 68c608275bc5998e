use std::collections::BTreeMap;

use proptest::prelude::*;

mod links;

use super::*;
use crate::archive::testing::{member, path};
use crate::error::ErrorKind;

fn file(text: &str, content: u32) -> Member<u32> {
    member(text, MemberKind::File(content))
}

fn directory(text: &str) -> Member<u32> {
    Member { mode: 0o700, ..member(text, MemberKind::Directory) }
}

fn symlink(text: &str, target: &str) -> Member<u32> {
    member(text, MemberKind::Symlink(target.as_bytes().into()))
}

fn link(text: &str, target: &str) -> Member<u32> {
    member(text, MemberKind::HardLink(path(target)))
}

fn assemble(members: Vec<Member<u32>>) -> Result<Vec<Placed<u32>>> {
    let mut assembly = Assembly::new(Limits::default());
    members.into_iter().try_for_each(|member| assembly.add(member))?;
    Ok(assembly.finish()?.collect())
}

/// One line a path: its kind, and `+` for a directory that an entry named.
fn shown(members: Vec<Member<u32>>) -> Vec<String> {
    let line = |placed: Placed<u32>| match placed {
        Placed::HardLink { path, first } => format!("{path} = {first}"),
        Placed::Inode { member, links } => {
            let links = links.iter().fold(String::new(), |text, path| text + " & " + &path.to_string());
            match member.kind {
                MemberKind::Directory if member.mode == IMPLICIT_MODE => format!("{}/", member.path),
                MemberKind::Directory => format!("{}/+", member.path),
                MemberKind::File(content) => format!("{} {content}{links}", member.path),
                MemberKind::Symlink(target) => {
                    format!("{} -> {}{links}", member.path, String::from_utf8_lossy(&target))
                }
                _ => format!("{} other{links}", member.path),
            }
        }
    };
    assemble(members).unwrap().into_iter().map(line).collect()
}

#[test]
fn missing_parents_are_implicit() {
    assert_eq!(shown(vec![]), ["//"]);
    assert_eq!(shown(vec![directory("")]), ["//+"]);
    assert_eq!(
        shown(vec![file("a/b/c", 1), file("a/b!", 2), file("a/b/d/e", 3)]),
        ["//", "/a/", "/a/b/", "/a/b/c 1", "/a/b/d/", "/a/b/d/e 3", "/a/b! 2"]
    );
    let root = assemble(vec![]).unwrap().remove(0);
    assert_eq!(root, Placed::Inode { member: implicit(TreePath::root()), links: vec![] });
}

#[test]
fn last_wins() {
    assert_eq!(shown(vec![file("a", 1), file("a", 2)]), ["//", "/a 2"]);
    assert_eq!(shown(vec![directory("a"), file("a/b", 1), directory("a")]), ["//", "/a/+", "/a/b 1"]);
    assert_eq!(shown(vec![file("a/b", 1), directory("a")]), ["//", "/a/+", "/a/b 1"]);
    assert_eq!(
        shown(vec![file("a/b", 1), file("a/b/c", 2), file("a", 3), file("ab", 4)]),
        ["//", "/a 3", "/ab 4"]
    );
    assert_eq!(shown(vec![file("a", 1), directory("a")]), ["//", "/a/+"]);
}

#[test]
fn nothing_goes_through_a_file() {
    assert_eq!(
        shown(vec![file("a", 1), file("a/b/c/d", 2)]),
        ["//", "/a/", "/a/b/", "/a/b/c/", "/a/b/c/d 2"]
    );
    // A neighbour that sorts between is not above.
    assert_eq!(shown(vec![file("a", 1), file("a!", 2), file("a/b", 3)]), ["//", "/a/", "/a/b 3", "/a! 2"]);
}

#[test]
fn hard_links_share_and_come_apart() {
    assert_eq!(
        shown(vec![file("b", 1), link("a", "b"), link("c", "a")]),
        ["//", "/a 1 & /b & /c", "/b = /a", "/c = /a"]
    );
    assert_eq!(shown(vec![file("b", 1), link("a", "b"), file("b", 2)]), ["//", "/a 1", "/b 2"]);
    assert_eq!(
        shown(vec![file("d/x", 1), link("y", "d/x"), link("z", "y"), file("d", 2)]),
        ["//", "/d 2", "/y 1 & /z", "/z = /y"]
    );
    assert_eq!(shown(vec![file("a", 1), link("b", "a"), link("b", "a")]), ["//", "/a 1 & /b", "/b = /a"]);
    assert_eq!(shown(vec![symlink("s", "/etc"), link("t", "s")]), ["//", "/s -> /etc & /t", "/t = /s"]);
    // GNU tar writes the latter for a file with two names, one of them given twice.
    assert_eq!(shown(vec![file("a", 1), link("a", "a")]), ["//", "/a 1"]);
    assert_eq!(
        shown(vec![file("a", 1), link("b", "a"), link("a", "b"), link("b", "b"), link("a", "a")]),
        ["//", "/a 1 & /b", "/b = /a"]
    );
    assert_eq!(
        shown(vec![file("a", 1), file("b", 2), link("b/c", "a")]),
        ["//", "/a 1 & /b/c", "/b/", "/b/c = /a"]
    );
}

#[test]
fn hard_links_that_cannot_be() {
    for members in [
        vec![link("a", "a")],
        vec![link("a", "b"), file("b", 1)],
        vec![directory("d"), link("a", "d")],
        vec![directory("d"), link("d", "d")],
        vec![file("d/x", 1), link("a", "d")],
        vec![file("d/x", 1), link("d", "d/x")],
        vec![file("f", 1), link("f/x", "f")],
        vec![directory("d"), file("d/x", 1), symlink("s", "/etc"), link("a", "s/x")],
        vec![file("a", 1), link("b", "")],
        vec![file("d/x", 1), file("d", 2), link("a", "d/x")],
    ] {
        let error = assemble(members.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{members:?}");
        assert!(error.to_string().contains("hard link"), "{error}");
    }
}

#[test]
fn the_root_is_a_directory() {
    for kind in [MemberKind::File(1), MemberKind::Fifo, MemberKind::HardLink(path("a"))] {
        let error = assemble(vec![file("a", 1), member("", kind)]).unwrap_err();
        assert!(error.to_string().contains("root"), "{error}");
    }
}

#[test]
fn implied_directories_count_against_the_limits() {
    let deep = |top: usize| file(&format!("{top}{}", "/d".repeat(2000)), 1);
    let members = || (0..10).map(deep).collect::<Vec<_>>();
    let finish = |limits: Limits| {
        let mut assembly = Assembly::new(limits);
        for member in members() {
            assembly.add(member).unwrap();
        }
        assembly.finish().map(Iterator::count)
    };
    assert_eq!(finish(Limits::default()).unwrap(), 20_011);
    let few = Limits { entries_max: 20_000, ..Limits::default() };
    assert_eq!(finish(few).unwrap_err().kind(), ErrorKind::QuotaExceeded);
    let short = Limits { metadata_bytes_max: 1 << 20, ..Limits::default() };
    assert_eq!(finish(short).unwrap_err().kind(), ErrorKind::QuotaExceeded);
}

/// Adds so many files, replaces a directory above them as often, and tears down deep paths; gives what the processor did for
/// it, in nanoseconds of this thread alone.
fn work_of_hostile_orders(count: u32) -> i64 {
    let now = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        time.tv_sec * 1_000_000_000 + time.tv_nsec
    };
    let begun = now();
    let mut assembly = Assembly::new(Limits::default());
    for number in 0..count {
        assembly.add(file(&format!("d/{number}"), number)).unwrap();
    }
    for number in 0..count {
        assembly.add(directory("d")).unwrap();
        assembly.add(file("e", number)).unwrap();
        assembly.add(directory("e")).unwrap();
    }
    let deep = format!("t{}", "/d".repeat(2000));
    for number in 0..count / 10 {
        assembly.add(file(&deep, number)).unwrap();
        assembly.add(file("t", number)).unwrap();
    }
    assert_eq!(assembly.finish().unwrap().count(), count as usize + 4);
    now() - begun
}

/// Work that grows with the square would be 64 times as much.
#[test]
fn hostile_orders_take_near_linear_work() {
    let (few, many) = (work_of_hostile_orders(5_000), work_of_hostile_orders(40_000));
    assert!(many < 20 * few, "eight times as many members took {} times the work", many / few);
}

/// The same rules without any cleverness: a plain map with every directory in it.
#[derive(Default)]
struct Model {
    paths: BTreeMap<TreePath, (usize, Member<u32>)>,
    made: usize,
}

impl Model {
    fn add(&mut self, member: Member<u32>) -> Result<(), ()> {
        let at = self.walk(&member.path)?;
        let is_directory = |(_, member): &(usize, Member<u32>)| member.kind == MemberKind::Directory;
        let is_link = |found: &(usize, Member<u32>)| matches!(found.1.kind, MemberKind::Symlink(_));
        if member.kind == MemberKind::Directory && self.paths.get(&at).is_some_and(is_link) {
            // A name below it leads to where the link does.
            if self.walk(&at.join(b"x").unwrap()).is_ok() {
                return Ok(());
            }
        }
        if matches!(member.kind, MemberKind::Symlink(_))
            && self.paths.keys().any(|path| *path != at && path.starts_with(&at))
        {
            return Err(());
        }
        let inode = if let MemberKind::HardLink(target) = &member.kind {
            let target = self.walk(target)?;
            let clash = at != target && (at.starts_with(&target) || target.starts_with(&at));
            let found = self.paths.get(&target).filter(|found| !is_directory(found) && !clash);
            let found = found.cloned().ok_or(())?;
            if at == target {
                return Ok(());
            }
            found
        } else {
            self.made += 1;
            (self.made, member)
        };
        let mut above = at.clone();
        while let Some(parent) = above.parent() {
            if !self.paths.get(&parent).is_some_and(is_directory) {
                self.made += 1;
                self.paths.insert(parent.clone(), (self.made, implicit(parent.clone())));
            }
            above = parent;
        }
        if !is_directory(&inode) {
            self.paths.retain(|path, _| !path.starts_with(&at));
        }
        self.paths.insert(at, inode);
        Ok(())
    }

    /// Where a path leads, one component after the other, as a kernel finds it; the last is not followed.
    fn walk(&self, path: &TreePath) -> Result<TreePath, ()> {
        let (mut here, mut links) = (TreePath::root(), 0);
        // Names still to come, and whether they are a link's.
        let mut ahead: Vec<_> = path.components().map(|name| (name.to_vec(), false)).collect();
        ahead.reverse();
        while ahead.len() > 1 || ahead.first().is_some_and(|(_, is_links)| *is_links) {
            let (name, is_links) = ahead.pop().unwrap();
            if name == b".." {
                here = here.parent().ok_or(())?;
                continue;
            }
            let next = here.join(&name).unwrap();
            match self.paths.get(&next).map(|(_, member)| &member.kind) {
                Some(MemberKind::Directory) => here = next,
                Some(MemberKind::Symlink(target)) => {
                    links += 1;
                    if links > 40 {
                        return Err(());
                    }
                    if target.starts_with(b"/") {
                        here = TreePath::root();
                    }
                    let target = String::from_utf8(target.to_vec()).unwrap();
                    let parts = target.split('/').rev().filter(|part| !matches!(*part, "" | "."));
                    ahead.extend(parts.map(|part| (part.as_bytes().to_vec(), true)));
                }
                Some(_) if links > 0 => return Err(()),
                None if is_links => return Err(()),
                Some(_) | None => {
                    here = ahead.iter().rev().fold(next, |path, (name, _)| path.join(name).unwrap());
                    return Ok(here);
                }
            }
        }
        ahead.pop().map_or(Ok(here.clone()), |(name, _)| Ok(here.join(&name).unwrap()))
    }

    fn placed(self) -> Vec<Placed<u32>> {
        let mut all = self.paths;
        all.entry(TreePath::root()).or_insert((0, implicit(TreePath::root())));
        let place = |(at, (inode, member)): (&TreePath, &(usize, Member<u32>))| {
            let group: Vec<_> =
                all.iter().filter(|(_, other)| other.0 == *inode).map(|(path, _)| path).collect();
            if group[0] == at {
                let links = group[1..].iter().copied().cloned().collect();
                Placed::Inode { member: Member { path: at.clone(), ..member.clone() }, links }
            } else {
                Placed::HardLink { path: at.clone(), first: group[0].clone() }
            }
        };
        all.iter().map(place).collect()
    }
}

fn some_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof!["a", "b", "a!", "\u{1}"], 1..4)
        .prop_map(|components| components.join("/"))
}

fn some_target() -> impl Strategy<Value = String> {
    let parts = prop::collection::vec(prop_oneof![4 => "a", 4 => "b", 2 => "\\.\\.", 1 => "\\."], 1..4);
    (any::<bool>(), parts)
        .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
}

fn some_member() -> impl Strategy<Value = Member<u32>> {
    prop_oneof![
        3 => (some_path(), any::<u32>()).prop_map(|(path, content)| file(&path, content)),
        2 => some_path().prop_map(|path| directory(&path)),
        2 => (some_path(), some_target()).prop_map(|(path, target)| symlink(&path, &target)),
        3 => (some_path(), some_path()).prop_map(|(path, target)| link(&path, &target)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn it_is_what_the_model_says(members in prop::collection::vec(some_member(), 0..25)) {
        let mut model = Model::default();
        let mut assembly = Assembly::new(Limits::default());
        for member in members {
            prop_assert_eq!(assembly.add(member.clone()).is_ok(), model.add(member).is_ok());
        }
        prop_assert_eq!(assembly.finish().unwrap().collect::<Vec<_>>(), model.placed());
    }
}
