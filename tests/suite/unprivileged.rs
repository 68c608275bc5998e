//! What a user without privileges meets. Run by root, these tests run themselves again as another user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use layerstone::{
    CheckoutOptions, CommitOptions, ErrorKind, ImportOptions, ListOptions, SharedFiles, Sharing, Store,
    WorkspaceOptions,
};

use crate::given::{Place, project, set_mtime};

/// Tells the test, run again, where to work.
const PLACE: &str = "LAYERSTONE_TEST_UNPRIVILEGED";

/// Runs `prepare` as this user and `check` as one without privileges: in this process if it has none.
fn unprivileged(test: &str, prepare: impl FnOnce(&Path), check: impl FnOnce(&Path)) {
    if let Some(place) = std::env::var_os(PLACE) {
        return check(Path::new(&place));
    }
    let place = Place::new();
    prepare(&place.path(""));
    fs::set_permissions(place.path(""), Permissions::from_mode(0o777)).unwrap();
    if !rustix::process::geteuid().is_root() {
        return check(&place.path(""));
    }
    // That user may not be able to reach the build directory.
    let program = place.path("suite");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]).arg(program);
    command.args(["--exact", &format!("unprivileged::{test}")]).env(PLACE, place.path(""));
    match command.current_dir(place.path("")).output() {
        Err(error) => println!("skipped: setpriv can't be run ({error})"),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
        }
    }
}

#[test]
fn an_unreadable_file_is_named_and_nothing_is_imported() {
    let prepare = |place: &Path| {
        fs::create_dir(place.join("source")).unwrap();
        fs::write(place.join("source/fine"), "x").unwrap();
        fs::write(place.join("source/secret"), "y").unwrap();
        fs::set_permissions(place.join("source/secret"), Permissions::from_mode(0o000)).unwrap();
    };
    unprivileged("an_unreadable_file_is_named_and_nothing_is_imported", prepare, |place| {
        let project = project(&Store::open(place.join("store")).unwrap(), "p");
        let error = project.import_directory(place.join("source"), &ImportOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("source/secret"), "{error}");
        assert_eq!(project.images(&ListOptions::default()).unwrap().images, []);
    });
}

#[test]
fn what_a_checkout_could_not_set_is_no_change() {
    if !rustix::process::geteuid().is_root() && std::env::var_os(PLACE).is_none() {
        println!("skipped: only root can make files of other owners");
        return;
    }
    let prepare = |place: &Path| {
        fs::create_dir_all(place.join("source/directory")).unwrap();
        for (name, mode) in [("setuid", 0o4755), ("plain", 0o644), ("directory/setgid", 0o2755)] {
            let path = place.join("source").join(name);
            fs::write(&path, name).unwrap();
            chown(&path, Some(1), Some(2)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
        fs::hard_link(place.join("source/setuid"), place.join("source/linked")).unwrap();
    };
    unprivileged("what_a_checkout_could_not_set_is_no_change", prepare, |place| {
        let project = project(&Store::open(place.join("store")).unwrap(), "p");
        let imported = project.import_directory(place.join("source"), &ImportOptions::default()).unwrap();
        let image = project.find(&imported.image.into()).unwrap();
        let directory = place.join("checkout");
        let report = image.check_out(&directory, CheckoutOptions::default()).unwrap();
        assert!(report.owners_unset >= 4 && report.modes_unset >= 2, "{report:?}");
        let mode = fs::metadata(directory.join("setuid")).unwrap().mode();
        assert_eq!(mode & 0o7000, 0, "nobody's program runs as somebody else");
        let unchanged = project.commit(&directory, &CommitOptions::default()).unwrap();
        assert_eq!((unchanged.image, unchanged.is_new), (imported.image, false));

        // Touched, it is read again, and still has the owner and mode that it could not get here.
        set_mtime(&directory.join("setuid"), 5, 5);
        fs::write(directory.join("directory/setgid"), "changed").unwrap();
        let changed = project.commit(&directory, &CommitOptions::default()).unwrap();
        let differences = image.diff(&project.find(&changed.image.into()).unwrap()).unwrap();
        let shown: Vec<_> = differences
            .map(Result::unwrap)
            .map(|difference| (difference.path.to_string(), difference.what.join(" ")))
            .collect();
        let expected = [("/directory/setgid", "content mtime"), ("/linked", "mtime")];
        assert_eq!(shown, expected.map(|(path, what)| (path.to_owned(), what.to_owned())));
    });
}

#[test]
fn a_file_that_lacks_something_is_not_shared() {
    if !rustix::process::geteuid().is_root() && std::env::var_os(PLACE).is_none() {
        println!("skipped: only root can make files of other owners");
        return;
    }
    let prepare = |place: &Path| {
        fs::create_dir(place.join("source")).unwrap();
        for (name, owner, mode) in [("own", 65_534, 0o644), ("other", 1, 0o4755), ("unreadable", 65_534, 0)] {
            let path = place.join("source").join(name);
            fs::write(&path, name.repeat(100)).unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
        let project = project(&Store::open(place.join("store")).unwrap(), "p");
        let options = ImportOptions { tags: crate::given::tags(&["os"]), ..ImportOptions::default() };
        project.import_directory(place.join("source"), &options).unwrap();
        for entry in walk(&place.join("store")) {
            chown(entry, Some(65_534), Some(65_534)).unwrap();
        }
        fs::create_dir(place.join("roots")).unwrap();
    };
    unprivileged("a_file_that_lacks_something_is_not_shared", prepare, |place| {
        let project = Store::open(place.join("store")).unwrap().project(&crate::given::parse("p")).unwrap();
        let image = project.find(&crate::given::reference("os")).unwrap();
        for (round, files_shared) in [0, 2].into_iter().enumerate() {
            let shared = SharedFiles { directory: place.join("cache"), sharing: Sharing::HardLink };
            let options = CheckoutOptions { shared: Some(shared), ..CheckoutOptions::default() };
            let directory = place.join(format!("checkout-{round}"));
            let report = image.check_out(&directory, options).unwrap();
            assert_eq!((report.files_shared, report.modes_unset), (files_shared, 1));
            let linked = |name: &str| fs::metadata(directory.join(name)).unwrap().nlink();
            assert_eq!((linked("own"), linked("other")), (2 + round as u64, 1));
        }
        let error = {
            let shared = SharedFiles { directory: place.join("roots"), sharing: Sharing::HardLink };
            let options = CheckoutOptions { shared: Some(shared), ..CheckoutOptions::default() };
            image.check_out(place.join("checkout"), options).unwrap_err()
        };
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    });
}

#[test]
fn attributes_of_what_may_not_be_written_are_set() {
    let prepare = |place: &Path| {
        fs::create_dir_all(place.join("source/fixed")).unwrap();
        fs::write(place.join("source/fixed/file"), "x").unwrap();
        for (name, mode) in [("fixed/file", 0o444), ("fixed", 0o555)] {
            let path = place.join("source").join(name);
            rustix::fs::setxattr(&path, "user.note", name.as_bytes(), rustix::fs::XattrFlags::empty())
                .unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
    };
    unprivileged("attributes_of_what_may_not_be_written_are_set", prepare, |place| {
        let project = project(&Store::open(place.join("store")).unwrap(), "p");
        let imported = project.import_directory(place.join("source"), &ImportOptions::default()).unwrap();
        let image = project.find(&imported.image.into()).unwrap();
        let report = image.check_out(place.join("checkout"), CheckoutOptions::default()).unwrap();
        assert_eq!((report.xattrs_unset, report.modes_unset), (0, 0));
        for name in ["fixed/file", "fixed"] {
            let mut value = [0; 10];
            let path = place.join("checkout").join(name);
            let len = rustix::fs::getxattr(path, "user.note", &mut value).unwrap();
            assert_eq!(&value[..len], name.as_bytes());
        }
    });
}

#[test]
fn whoever_may_only_read_a_store_can_read_it() {
    let prepare = |place: &Path| {
        fs::create_dir_all(place.join("source").join("d/".repeat(500))).unwrap();
        fs::write(place.join("source/motd"), "hello").unwrap();
        fs::write(place.join("source/d/d/file"), "deep").unwrap();
        for mode in [0o000, 0o555] {
            fs::create_dir(place.join(format!("source/{mode}"))).unwrap();
            fs::write(place.join(format!("source/{mode}/file")), "x").unwrap();
            fs::set_permissions(place.join(format!("source/{mode}")), Permissions::from_mode(mode)).unwrap();
        }
        for name in ["store", "lacking"] {
            let project = project(&Store::open(place.join(name)).unwrap(), "p");
            let options = ImportOptions { tags: crate::given::tags(&["os"]), ..ImportOptions::default() };
            project.import_directory(place.join("source"), &options).unwrap();
        }
        // There is no use in telling those about it who can hold nothing anyway.
        fs::remove_dir_all(place.join("lacking/generations")).unwrap();
        for entry in [walk(&place.join("store")), walk(&place.join("lacking"))].concat() {
            let mode = if entry.is_dir() { 0o555 } else { 0o444 };
            fs::set_permissions(entry, Permissions::from_mode(mode)).unwrap();
        }
    };
    unprivileged("whoever_may_only_read_a_store_can_read_it", prepare, |place| {
        let find = |store: &str| {
            let project = Store::open(place.join(store)).unwrap().project(&crate::given::parse("p")).unwrap();
            let image = project.find(&crate::given::reference("os")).unwrap();
            assert_eq!(crate::given::read(&image, "motd").unwrap(), b"hello");
            (project, image)
        };
        find("lacking");
        let (project, image) = find("store");
        let error = project.import_directory(place.join("source/d"), &ImportOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("catalog"), "{error}");

        // A checkout is recorded in the store, which fails here: it is whole, and says that the store does not know it.
        let report = image.check_out(place.join("checkout"), CheckoutOptions::default()).unwrap();
        assert!(report.untracked.is_some_and(|reason| reason.contains("catalog")));
        assert_eq!(fs::read(place.join("checkout/motd")).unwrap(), b"hello");
        let left: Vec<_> = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().contains("layerstone-")), "{left:?}");
        for entry in [walk(&place.join("store")), walk(&place.join("lacking"))].concat() {
            let _ = fs::set_permissions(entry, Permissions::from_mode(0o755));
        }
    });
}

/// A directory and everything in it.
fn walk(path: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next).cloned() {
        next += 1;
        if path.is_dir() {
            found.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn what_is_new_in_a_workspace_is_root_s() {
    if !rustix::process::geteuid().is_root() && std::env::var_os(PLACE).is_none() {
        println!("skipped: only root can make files of other owners");
        return;
    }
    let prepare = |place: &Path| {
        fs::create_dir(place.join("source")).unwrap();
        for (name, owner) in [("of-root", 0), ("of-another", 7), ("of-nobody", 65_534)] {
            let path = place.join("source").join(name);
            fs::write(&path, name).unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
        }
    };
    unprivileged("what_is_new_in_a_workspace_is_root_s", prepare, |place| {
        let project = project(&Store::open(place.join("store")).unwrap(), "p");
        let imported = project.import_directory(place.join("source"), &ImportOptions::default()).unwrap();
        let image = project.find(&imported.image.into()).unwrap();
        let workspace = image.create_workspace(&WorkspaceOptions::default()).unwrap();
        assert_eq!(workspace.why_copy(), Some("this process may not mount"));
        let path = workspace.path().unwrap();
        for name in ["of-root", "of-another", "of-nobody", "new"] {
            fs::write(path.join(name), "changed").unwrap();
        }
        // As editors do it.
        fs::write(path.join("other"), "changed again").unwrap();
        fs::rename(path.join("other"), path.join("of-another")).unwrap();
        fs::hard_link(path.join("new"), path.join("again")).unwrap();
        let made = workspace.commit(&CommitOptions::default()).unwrap().image;
        let entries = project.find(&made.into()).unwrap().list(&layerstone::TreePath::root()).unwrap();
        let owners: Vec<_> =
            entries.iter().map(|entry| (entry.path.to_string(), entry.uid, entry.gid)).collect();
        let expected =
            [("/again", 0), ("/new", 0), ("/of-another", 7), ("/of-nobody", 65_534), ("/of-root", 0)];
        assert_eq!(owners, expected.map(|(path, owner)| (path.to_owned(), owner, owner)));
        // Known now, they are no change to the next commit, whether they are read again or not.
        assert_eq!(workspace.commit(&CommitOptions::default()).unwrap().image, made);
        set_mtime(&path.join("new"), 5, 5);
        let touched = workspace.commit_and_end(&CommitOptions::default()).unwrap().image;
        let differences = project.find(&made.into()).unwrap();
        let differences = differences.diff(&project.find(&touched.into()).unwrap()).unwrap();
        let shown: Vec<_> =
            differences.map(Result::unwrap).map(|difference| difference.what.join(" ")).collect();
        assert_eq!(shown, ["mtime"]);
    });
}

#[test]
fn what_its_owner_can_t_read_is_committed_and_stays_so() {
    if !rustix::process::geteuid().is_root() && std::env::var_os(PLACE).is_none() {
        println!("skipped: only root can import what nobody can read");
        return;
    }
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    let prepare = |place: &Path| {
        fs::create_dir_all(place.join("source/closed")).unwrap();
        for (name, mode) in [("shadow", 0o000), ("closed/in", 0o200), ("closed", 0o311)] {
            let path = place.join("source").join(name);
            if name != "closed" {
                fs::write(&path, name).unwrap();
            }
            set(&path, mode);
        }
        let project = project(&Store::open(place.join("store")).unwrap(), "p");
        let options = ImportOptions { tags: crate::given::tags(&["os"]), ..ImportOptions::default() };
        project.import_directory(place.join("source"), &options).unwrap();
        for entry in walk(&place.join("store")) {
            chown(entry, Some(65_534), Some(65_534)).unwrap();
        }
    };
    unprivileged("what_its_owner_can_t_read_is_committed_and_stays_so", prepare, |place| {
        let project = Store::open(place.join("store")).unwrap().project(&crate::given::parse("p")).unwrap();
        let image = project.find(&crate::given::reference("os")).unwrap();
        let workspace = image.create_workspace(&WorkspaceOptions::default()).unwrap();
        let checkout = place.join("checkout");
        image.check_out(&checkout, CheckoutOptions::default()).unwrap();
        let path = workspace.path().unwrap();
        for root in [&path, &checkout] {
            set(root, 0o755);
            set(&root.join("shadow"), 0o600);
            fs::write(root.join("shadow"), "changed").unwrap();
            set(&root.join("shadow"), 0o000);
            fs::write(root.join("new"), "new").unwrap();
            fs::create_dir_all(root.join("shut/deep")).unwrap();
            fs::write(root.join("shut/deep/file"), "deep").unwrap();
            for (name, mode) in
                [("new", 0o040), ("shut/deep/file", 0o000), ("shut/deep", 0o000), ("shut", 0o600)]
            {
                set(&root.join(name), mode);
            }
            set(root, 0o311);
            let made = if root == &path {
                workspace.commit(&CommitOptions::default())
            } else {
                project.commit(root, &CommitOptions::default())
            };
            let made = project.find(&made.unwrap().image.into()).unwrap();
            for (name, text) in [
                ("shadow", "changed"),
                ("new", "new"),
                ("shut/deep/file", "deep"),
                ("closed/in", "closed/in"),
            ] {
                assert_eq!(crate::given::read(&made, name).unwrap(), text.as_bytes());
            }
            let shown: Vec<_> =
                image.diff(&made).unwrap().map(|found| found.unwrap().path.to_string()).collect();
            let changed = ["/", "/new", "/shadow", "/shut", "/shut/deep", "/shut/deep/file"];
            assert_eq!(shown, changed);
            let entries = made.list(&layerstone::TreePath::root()).unwrap();
            let modes: Vec<_> = entries.iter().map(|entry| (entry.path.to_string(), entry.mode)).collect();
            let expected = [("/closed", 0o311), ("/new", 0o040), ("/shadow", 0), ("/shut", 0o600)];
            assert_eq!(modes, expected.map(|(path, mode)| (path.to_owned(), mode)));
            let now = ["", "closed", "new", "shadow", "shut"].map(|name| mode(&root.join(name)));
            assert_eq!(now, [0o311, 0o311, 0o040, 0, 0o600], "as they were");
        }
        let names = fs::read_dir(place.join("store/workspaces")).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert!(names.all(|name| !name.starts_with("lent")));
        // What is not the store's is not touched.
        set(&checkout.join("shut"), 0o700);
        let error = project.import_directory(&checkout, &ImportOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert_eq!((mode(&checkout.join("shadow")), mode(&checkout.join("closed"))), (0, 0o311));
        let again = workspace.commit_and_end(&CommitOptions::default()).unwrap();
        assert!(!again.is_new && !path.exists());
    });
}

#[test]
fn no_umask_takes_the_files_of_a_store_from_its_owner() {
    let prepare = |place: &Path| {
        fs::create_dir(place.join("source")).unwrap();
        fs::write(place.join("source/file"), "text").unwrap();
        fs::set_permissions(place.join("source/file"), Permissions::from_mode(0o644)).unwrap();
    };
    unprivileged("no_umask_takes_the_files_of_a_store_from_its_owner", prepare, |place| {
        // It is the whole process's: only in one of its own.
        if std::env::var_os(PLACE).is_some() {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
        }
        let made = project(&Store::open(place.join("store")).unwrap(), "p")
            .import_directory(place.join("source"), &ImportOptions::default())
            .unwrap();
        let store = Store::open(place.join("store")).unwrap();
        let image = store.project(&"p".parse().unwrap()).unwrap().find(&made.image.into()).unwrap();
        assert_eq!(crate::given::read(&image, "file").unwrap(), b"text");
        assert!(store.verify().unwrap().is_sound());
        store.collect_garbage(&layerstone::GcOptions { full: true, ..Default::default() }).unwrap();
    });
}
