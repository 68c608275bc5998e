//! Images changed in code, by layers' tars, and by merging.

use std::fs;
use std::io::Read;
use std::process::Command;

use layerstone::tree::Timestamp;
use layerstone::{
    CheckoutOptions, CommitOptions, EntryKind, ErrorKind, Image, ImageRef, ImportOptions, ListOptions,
    MergeOutcome, Project, Store, TreePath,
};

use crate::given::{Place, project};
use crate::roundtrip::noise;

struct Given {
    place: Place,
    project: Project,
    base: Image,
}

impl Given {
    fn new() -> Self {
        let place = Place::new();
        let project = project(&Store::open(place.path("store")).unwrap(), "p");
        let files: [(&str, &[u8]); 4] =
            [("usr/bin/tool", b"tool"), ("etc/motd", b"hello"), ("etc/conf.d/a", b"a"), ("data/one", b"one")];
        let source = place.directory("source", &files);
        std::os::unix::fs::symlink("usr/bin", source.join("bin")).unwrap();
        fs::hard_link(source.join("data/one"), source.join("data/two")).unwrap();
        let base = project.import_directory(&source, &ImportOptions::default()).unwrap().image;
        let base = project.find(&base.into()).unwrap();
        Self { place, project, base }
    }

    fn find(&self, id: layerstone::id::ImageId) -> Image {
        self.project.find(&ImageRef::Id(id)).unwrap()
    }
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn read(image: &Image, at: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    image.read_file(&path(at)).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// What differs between two images, one text for each path.
fn differences(before: &Image, after: &Image) -> Vec<String> {
    let differences = before.diff(after).unwrap().map(Result::unwrap);
    differences.map(|found| format!("{:?} {} {}", found.kind, found.path, found.what.join(","))).collect()
}

fn options() -> CommitOptions {
    CommitOptions::default()
}

#[test]
fn steps_are_taken_in_order_and_make_one_image() {
    let given = Given::new();
    let large = noise(3_000_000, 1);
    fs::write(given.place.path("upload"), "uploaded").unwrap();
    let made = given
        .base
        .edit()
        .write("/etc/motd", "bye")
        .write("/bin/new", "through a link")
        .write_from("/srv/deep/large", large.as_slice())
        .lay_file(given.place.path("upload"), "/opt/laid", 5, 6, 0o600)
        .mkdir("/var/lib/empty")
        .symlink("/etc/alias", "motd")
        .write("/etc/alias", "through the alias")
        .remove("/etc/conf.d")
        .rename("/usr/bin/tool", "/usr/bin/renamed")
        .chmod("/data/two", 0o640)
        .chown("/data/one", 1, 2)
        .set_xattr("/opt/laid", "user.a", "1")
        .set_xattr("/opt/laid", "user.b", vec![7; 900])
        .remove_xattr("/opt/laid", "user.a")
        .touch("/opt/laid", Timestamp { seconds: 5, nanos: 6 })
        .hard_link("/etc/hard", "/data/one")
        .commit(&options())
        .unwrap();
    assert!(made.is_new);
    let image = given.find(made.image);
    assert_eq!(image.info().parent, Some(given.base.id()));
    assert_eq!(read(&image, "/etc/motd"), b"through the alias");
    assert_eq!(read(&image, "/usr/bin/new"), b"through a link");
    assert_eq!(read(&image, "/srv/deep/large"), large);
    assert_eq!(read(&image, "/usr/bin/renamed"), b"tool");
    let laid = &image.list(&path("/opt/laid")).unwrap()[0];
    assert_eq!((laid.uid, laid.gid, laid.mode, laid.mtime_seconds, laid.mtime_nanos), (5, 6, 0o600, 5, 6));
    let one = image.list(&path("/etc/hard")).unwrap();
    assert_eq!((one[0].mode, one[0].uid, one[0].gid), (0o640, 1, 2), "one inode under all its names");
    assert_eq!(
        differences(&given.base, &image),
        [
            "Modified /data/one mode,owner,links",
            "Added /etc/alias ",
            "Removed /etc/conf.d ",
            "Removed /etc/conf.d/a ",
            "Added /etc/hard ",
            "Modified /etc/motd content,mtime",
            "Added /opt ",
            "Added /opt/laid ",
            "Added /srv ",
            "Added /srv/deep ",
            "Added /srv/deep/large ",
            "Added /usr/bin/new ",
            "Added /usr/bin/renamed ",
            "Removed /usr/bin/tool ",
            "Added /var ",
            "Added /var/lib ",
            "Added /var/lib/empty ",
        ]
    );
    // What is on the disk after a checkout is what was edited.
    image.check_out(given.place.path("out"), CheckoutOptions::default()).unwrap();
    assert_eq!(fs::read(given.place.path("out/etc/hard")).unwrap(), b"one");
    assert!(!given.project.commit(given.place.path("out"), &options()).unwrap().is_new);
}

#[test]
fn an_edit_that_changes_nothing_gives_the_image_back() {
    let given = Given::new();
    let edits = [
        given.base.edit(),
        given.base.edit().write("/etc/motd", "hello").mkdir("/etc").hard_link("/data/one", "/data/two"),
        given.base.edit().write("/x", "x").remove("/x"),
        given.base.edit().rename("/etc", "/config").rename("/config", "/etc"),
    ];
    for edit in edits {
        let made = edit.commit(&options()).unwrap();
        assert!(!made.is_new && made.image == given.base.id(), "{made:?}");
    }
    // A tag is set all the same.
    let tagged = CommitOptions { tags: vec!["same".parse().unwrap()], ..options() };
    given.base.edit().commit(&tagged).unwrap();
    assert_eq!(given.project.resolve(&"same".parse().unwrap()).unwrap().id, given.base.id());
}

#[test]
fn a_step_that_cannot_be_taken_names_its_path_and_leaves_nothing() {
    let given = Given::new();
    let edit = || given.base.edit();
    let before = given.project.images(&ListOptions::default()).unwrap();
    for (edit, kind, named) in [
        (edit().write("/etc", "x"), ErrorKind::Conflict, "/etc"),
        (edit().write("/etc/motd/x", "x"), ErrorKind::Invalid, "/etc/motd"),
        (edit().write("/../x", "x"), ErrorKind::Invalid, "/../x"),
        (edit().remove("/nowhere"), ErrorKind::NotFound, "/nowhere"),
        (edit().remove("/"), ErrorKind::Invalid, "/"),
        (edit().mkdir("/etc/motd"), ErrorKind::Conflict, "/etc/motd"),
        (edit().symlink("/etc", "x"), ErrorKind::Conflict, "/etc"),
        (edit().symlink("/s", ""), ErrorKind::Invalid, "/s"),
        (edit().symlink("/a", "b").symlink("/b", "a").write("/a/x", "x"), ErrorKind::Invalid, "/a/x"),
        (edit().hard_link("/x", "/etc"), ErrorKind::Invalid, "/x"),
        (edit().rename("/etc", "/etc/conf.d/etc"), ErrorKind::Invalid, "/etc"),
        (edit().rename("/etc", "/usr"), ErrorKind::Conflict, "/usr"),
        (edit().chmod("/nowhere", 0o600), ErrorKind::NotFound, "/nowhere"),
        (edit().chmod("/etc", 0o10000), ErrorKind::Invalid, "/etc"),
        (edit().set_xattr("/etc", "", "x"), ErrorKind::Invalid, "/etc"),
        (edit().chown("/", u32::MAX, 0), ErrorKind::Invalid, "can't belong to user or group 4294967295"),
        (edit().chown("/", 0, u32::MAX), ErrorKind::Invalid, "can't belong to user or group 4294967295"),
        (edit().lay_file("/dev/null", "/x", u32::MAX, 0, 0o644), ErrorKind::Invalid, "can't belong"),
        (edit().lay_file(given.place.path("nowhere"), "/x", 0, 0, 0o644), ErrorKind::Io, "nowhere"),
        (edit().write("/big", noise(5_000, 1)).apply_tar(&b"rubbish"[..]), ErrorKind::Invalid, "tar"),
    ] {
        let shown = format!("{edit:?}");
        let error = edit.write("/after", "x").commit(&options()).unwrap_err();
        assert_eq!(error.kind(), kind, "{shown}: {error}");
        assert!(error.to_string().contains(named), "{shown}: {error}");
    }
    let limit = CommitOptions { max_layer_bytes: Some(1_000), ..options() };
    let error = edit().write("/big", noise(1_001, 2)).commit(&limit).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
    assert!(edit().write("/big", noise(1_000, 2)).commit(&limit).unwrap().is_new);
    let with_base = CommitOptions { base: Some(given.base.id().into()), ..options() };
    assert_eq!(edit().commit(&with_base).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(given.project.images(&ListOptions::default()).unwrap().images.len(), before.images.len() + 1);
}

#[test]
fn thousands_of_edits_are_one_commit() {
    let given = Given::new();
    let edit = (0..5_000).fold(given.base.edit(), |edit, number| {
        edit.write(format!("/many/{}/{number}", number % 40), format!("content {number}"))
    });
    let made = edit.commit(&options()).unwrap();
    assert_eq!(made.entries, given.base.info().entries + 5_000 + 41);
    assert_eq!(read(&given.find(made.image), "/many/7/47"), b"content 47");
}

/// A tar of a directory's content.
fn tar(given: &Given, directory: &str) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--numeric-owner", "--directory"]).arg(given.place.path(directory)).arg(".");
    tar.output().unwrap().stdout
}

#[test]
fn a_layer_s_tar_takes_away_and_puts() {
    let given = Given::new();
    let layer = given.place.directory(
        "layer",
        &[
            ("etc/.wh.motd", b"".as_slice()),
            ("etc/conf.d/.wh..wh..opq", b""),
            ("etc/conf.d/b", b"b"),
            (".wh.nowhere", b""),
            (".wh..wh.plnk", b""),
            ("data/.wh.one", b""),
            ("data/new", b"new"),
        ],
    );
    fs::hard_link(layer.join("data/new"), layer.join("data/newer")).unwrap();
    let made = given.base.edit().apply_tar(tar(&given, "layer").as_slice()).commit(&options()).unwrap();
    let image = given.find(made.image);
    let names = |at: &str| -> Vec<_> {
        image.list(&path(at)).unwrap().iter().map(|entry| entry.path.to_string()).collect()
    };
    assert_eq!(names("/etc"), ["/etc/conf.d"]);
    assert_eq!(names("/etc/conf.d"), ["/etc/conf.d/b"], "what the layer itself has there stays");
    assert_eq!(names("/data"), ["/data/new", "/data/newer", "/data/two"]);
    assert_eq!(read(&image, "/data/two"), b"one");
    assert_eq!(
        image.list(&path("/data")).unwrap()[1].hard_link_to.as_ref().map(ToString::to_string),
        Some("/data/new".to_owned())
    );
    assert!(image.list(&path("/")).unwrap().iter().all(|entry| !entry.path.to_string().contains(".wh.")));
    // The same layer again changes nothing but for what it takes away, which is gone already.
    let again = image.edit().apply_tar(tar(&given, "layer").as_slice()).commit(&options()).unwrap();
    assert!(!again.is_new, "{:?}", differences(&image, &given.find(again.image)));
}

#[test]
fn a_layer_goes_through_links_of_the_base_and_links_to_its_files() {
    let given = Given::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    header.set_mode(0o644);
    tar.append_link(&mut header, "linked", "bin/tool").unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/added", &b"added"[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let made = given.base.edit().apply_tar(tar.as_slice()).commit(&options()).unwrap();
    let image = given.find(made.image);
    assert_eq!(read(&image, "/linked"), b"tool");
    let linked = &image.list(&path("/usr/bin/tool")).unwrap()[0];
    assert_eq!(linked.hard_link_to.as_ref().map(ToString::to_string), Some("/linked".to_owned()));
    assert_eq!(linked.kind, EntryKind::File);
    let added = &image.list(&path("/usr/bin/added")).unwrap()[0];
    assert_eq!((added.mode, added.size), (0o755, 5), "where the base's link leads");
    assert_eq!(image.list(&path("/")).unwrap()[0].kind, EntryKind::Symlink);
}

/// Entries of a tar: a path, and its text, or none for a directory.
fn layer_of(entries: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (at, text) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(if text.is_some() {
            tar::EntryType::Regular
        } else {
            tar::EntryType::Directory
        });
        header.set_size(text.map_or(0, str::len) as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, at, text.unwrap_or_default().as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn a_whiteout_below_a_link_that_the_layer_replaces_takes_nothing_away() {
    let given = Given::new();
    let layer = [
        ("bin/", None),
        ("bin/.wh..wh..opq", Some("")),
        ("bin/.wh.tool", Some("")),
        ("bin/new", Some("new")),
        // The base has a file there, so there is nothing below it.
        ("etc/motd/.wh.x", Some("")),
        (".wh..wh.plnk/12.34", Some("aufs")),
    ];
    let made = given.base.edit().apply_tar(layer_of(&layer).as_slice()).commit(&options()).unwrap();
    let image = given.find(made.image);
    assert_eq!(read(&image, "/usr/bin/tool"), b"tool");
    let names: Vec<_> =
        image.list(&path("/bin")).unwrap().iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["/bin/new"]);
    assert!(image.list(&path("/.wh..wh.plnk")).is_err());
}

#[test]
fn a_hard_link_to_nothing_is_a_malformed_layer() {
    let given = Given::new();
    for target in ["nowhere", "etc", "linked", "linked/below"] {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        tar.append_link(&mut header, "linked", target).unwrap();
        let tar = tar.into_inner().unwrap();
        let error = given.base.edit().apply_tar(tar.as_slice()).commit(&options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{target}: {error}");
        assert!(error.to_string().contains("/linked"), "{error}");
    }
}

#[test]
fn steps_after_a_layer_s_tar_see_what_it_put() {
    let given = Given::new();
    let mut tar = Command::new("tar");
    let source = given.place.directory("attributes", &[("f", b"f")]);
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(source.join("f"), "user.long", &[7; 900], flags).unwrap();
    let tar =
        tar.args(["--create", "--xattrs", "--directory"]).arg(&source).arg("f").output().unwrap().stdout;
    let edit = given.base.edit().apply_tar(tar.as_slice()).set_xattr("/f", "user.more", "1");
    let made = edit.commit(&options()).unwrap();
    given.find(made.image).check_out(given.place.path("out"), CheckoutOptions::default()).unwrap();
    let mut value = [0; 1_000];
    let file = given.place.path("out/f");
    assert_eq!(rustix::fs::getxattr(&file, "user.long", &mut value[..]).unwrap(), 900);
    assert_eq!(rustix::fs::getxattr(&file, "user.more", &mut value[..]).unwrap(), 1);
}

#[test]
fn there_is_no_way_out_of_what_is_not_there() {
    let given = Given::new();
    let made = given.base.edit().symlink("/way", "nowhere/../etc/motd").commit(&options()).unwrap();
    let image = given.find(made.image);
    assert_eq!(image.read_file(&path("/way")).err().unwrap().kind(), ErrorKind::NotFound);
    let through_file = given.base.edit().symlink("/way", "etc/motd/../motd").commit(&options()).unwrap();
    assert_eq!(
        given.find(through_file.image).read_file(&path("/way")).err().unwrap().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn images_are_merged_though_what_both_came_from_is_gone() {
    let given = Given::new();
    let from =
        |image: &Image, at: &str| given.find(image.edit().write(at, at).commit(&options()).unwrap().image);
    let base = from(&given.base, "/base");
    let (ours, theirs) = (from(&from(&base, "/ours"), "/more"), from(&base, "/theirs"));
    given.project.remove(&base.id().into(), false).unwrap();
    let merged = given.project.merge(&ours.id().into(), &theirs.id().into(), &options()).unwrap();
    let merged = given.find(merged.into_report().unwrap().image);
    for at in ["/base", "/ours", "/more", "/theirs"] {
        assert_eq!(read(&merged, at), at.as_bytes());
    }
}

#[test]
fn images_are_merged_since_what_both_came_from() {
    let given = Given::new();
    let base = given.base.edit().write("/common", "1").commit(&options()).unwrap().image;
    let base = given.find(base);
    let ours = base.edit().write("/ours", "o").chmod("/etc/motd", 0o600).commit(&options()).unwrap().image;
    let theirs =
        base.edit().write("/theirs", "t").write("/etc/motd", "changed").commit(&options()).unwrap().image;
    let merge = |ours: layerstone::id::ImageId, theirs: layerstone::id::ImageId, options: &CommitOptions| {
        given.project.merge(&ours.into(), &theirs.into(), options).unwrap()
    };
    let MergeOutcome::Merged(made) = merge(ours, theirs, &options()) else { panic!("no conflict") };
    let merged = given.find(made.image);
    assert_eq!(merged.info().parent, Some(ours));
    assert_eq!((read(&merged, "/ours"), read(&merged, "/theirs")), (b"o".to_vec(), b"t".to_vec()));
    let motd = &merged.list(&path("/etc/motd")).unwrap()[0];
    assert_eq!((motd.mode, read(&merged, "/etc/motd")), (0o600, b"changed".to_vec()));
    let step = &merged.history().unwrap()[0];
    assert_eq!((step.created_by.as_str(), step.added, step.modified, step.removed), ("merge", 1, 1, 0));
    // The other way round it is the same tree, and again it is nothing new.
    let MergeOutcome::Merged(back) = merge(theirs, ours, &options()) else { panic!("no conflict") };
    assert_eq!(given.find(back.image).info().root, merged.info().root);
    let MergeOutcome::Merged(again) = merge(made.image, theirs, &options()) else { panic!("no conflict") };
    assert!(!again.is_new);
    // One commit's changes upon another image: its parent is the base.
    let upon = given.base.edit().write("/elsewhere", "e").commit(&options()).unwrap().image;
    let rebase = CommitOptions { base: Some(base.id().into()), ..options() };
    let MergeOutcome::Merged(rebased) = merge(upon, theirs, &rebase) else { panic!("no conflict") };
    let rebased = given.find(rebased.image);
    assert_eq!((read(&rebased, "/theirs"), read(&rebased, "/elsewhere")), (b"t".to_vec(), b"e".to_vec()));
    assert!(rebased.list(&path("/common")).is_err());

    let other = base.edit().write("/theirs", "other").remove("/etc/motd").commit(&options()).unwrap().image;
    let images = given.project.images(&ListOptions::default()).unwrap().images.len();
    assert_eq!(
        merge(theirs, other, &options()),
        MergeOutcome::Conflicts(vec![path("/etc/motd"), path("/theirs")])
    );
    assert_eq!(given.project.images(&ListOptions::default()).unwrap().images.len(), images);
    let empty = given.place.directory("empty", &[("x", b"x")]);
    let unrelated = given.project.import_directory(&empty, &ImportOptions::default()).unwrap().image;
    let error = given.project.merge(&ours.into(), &unrelated.into(), &options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn lineage_outlives_images() {
    let given = Given::new();
    let commit = |image: &Image, text: &str| {
        given.find(image.edit().write("/text", text).commit(&options()).unwrap().image)
    };
    let a = commit(&given.base, "a");
    let b = commit(&a, "b");
    let c = commit(&b, "c");
    let d = commit(&a, "d");
    let ids = |ancestors: Vec<layerstone::Ancestor>| -> Vec<_> {
        ancestors.iter().map(|ancestor| (ancestor.id, ancestor.is_there)).collect()
    };
    assert_eq!(ids(c.ancestors().unwrap()), [(b.id(), true), (a.id(), true), (given.base.id(), true)]);
    assert_eq!(a.children().unwrap(), [b.id(), d.id()]);
    let common = |one: &Image, other: &Image| given.project.common_ancestor(one.id(), other.id()).unwrap();
    assert_eq!(common(&c, &d), Some(a.id()));
    assert_eq!(common(&d, &c), Some(a.id()));
    assert_eq!(common(&c, &b), Some(b.id()));
    assert_eq!(common(&c, &c), Some(c.id()));

    let order = |of: Option<&ImageRef>| -> Vec<_> {
        let nodes = given.project.lineage(of).unwrap();
        nodes.iter().map(|node| (node.id, node.info.is_some())).collect()
    };
    given.project.remove(&b.id().into(), false).unwrap();
    let all = [(given.base.id(), true), (a.id(), true), (b.id(), false), (c.id(), true), (d.id(), true)];
    assert_eq!(order(None), all);
    assert_eq!(order(Some(&a.id().into())), all[1..]);
    assert_eq!(ids(c.ancestors().unwrap())[0], (b.id(), false));
    assert_eq!(given.project.parent(b.id()).unwrap(), Some(a.id()));
    assert_eq!(a.children().unwrap(), [d.id()], "of those that are there");
    assert_eq!(common(&c, &d), Some(a.id()));
    given.project.remove(&c.id().into(), false).unwrap();
    assert_eq!(order(None), [(given.base.id(), true), (a.id(), true), (d.id(), true)], "nothing led to them");

    // Another project knows nothing of it.
    let store = Store::open(given.place.path("store")).unwrap();
    let other = project(&store, "other");
    assert_eq!(other.parent(a.id()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(other.ancestors(d.id()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(other.children(a.id()).unwrap(), []);
    store.remove_project(&"p".parse().unwrap(), true).unwrap();
}
