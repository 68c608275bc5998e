//! What a project may have.

use std::fs;

use layerstone::id::ImageId;
use layerstone::testing::{DiskLog, DiskOperation};
use layerstone::{
    CommitOptions, Error, ErrorKind, ImportOptions, OverlayMarks, Project, ProjectLimits, Store,
    StoreOptions, WorkspaceOptions, WriteReport,
};

use crate::cli::Cli;
use crate::given::{Place, parse, project};
use crate::roundtrip::noise;

struct Given {
    place: Place,
    store: Store,
    project: Project,
    log: DiskLog,
    base: ImageId,
}

fn given() -> Given {
    let (place, log) = (Place::new(), DiskLog::default());
    let store = Store::open_recorded(place.path("store"), StoreOptions::default(), &log).unwrap();
    let project = project(&store, "p");
    let source = place.directory("source", &[("file", b"text")]);
    let base = project.import_directory(source, &ImportOptions::default()).unwrap().image;
    Given { place, store, project, log, base }
}

impl Given {
    fn limit(&self, bytes: Option<u64>) {
        self.store
            .limit_project(self.project.name(), ProjectLimits::default().max_layer_bytes(bytes))
            .unwrap();
    }

    /// Commits one more file of this size, from everywhere that a change can come from.
    fn commits(&self, size: usize, options: &CommitOptions) -> Vec<Result<WriteReport, Error>> {
        let image = self.project.find(&self.base.into()).unwrap();
        let made: u64 = self.log.take().len() as u64;
        let bytes = noise(size, made + 1);
        let upper = self.place.path("upper");
        let _ = fs::remove_dir_all(&upper);
        fs::create_dir(&upper).unwrap();
        fs::write(upper.join("new"), &bytes).unwrap();
        let named = CommitOptions { base: Some(self.base.into()), ..options.clone() };
        let copy = WorkspaceOptions { full_copy: true, ..WorkspaceOptions::default() };
        let workspace = image.create_workspace(&copy).unwrap();
        fs::write(workspace.path().unwrap().join("new"), &bytes).unwrap();
        vec![
            self.project.commit(&upper, &named),
            self.project.commit_upper(&upper, &self.base.into(), OverlayMarks::User, options),
            workspace.commit(options),
            image.edit().write("/new", bytes).commit(options),
        ]
    }
}

fn are_refused(outcomes: &[Result<WriteReport, Error>]) {
    for outcome in outcomes {
        assert_eq!(outcome.as_ref().unwrap_err().kind(), ErrorKind::QuotaExceeded);
    }
}

#[test]
fn a_project_s_limit_holds_wherever_a_change_comes_from() {
    let given = given();
    let free = CommitOptions::default();
    assert!(given.commits(2_000, &free).iter().all(Result::is_ok));
    given.limit(Some(1_000));
    assert_eq!(given.project.limits().unwrap().max_layer_bytes, Some(1_000));
    are_refused(&given.commits(1_001, &free));
    assert!(given.commits(1_000, &free).iter().all(Result::is_ok));
    // The caller's own limit counts where it is lower, and only there.
    let limited = |bytes| CommitOptions { max_layer_bytes: Some(bytes), ..CommitOptions::default() };
    are_refused(&given.commits(600, &limited(599)));
    are_refused(&given.commits(1_001, &limited(5_000)));
    given.limit(None);
    assert!(given.commits(3_000, &free).iter().all(Result::is_ok));
    // An import is no change of an image.
    given.limit(Some(1));
    let other = given.place.directory("other", &[("file", b"other text")]);
    given.project.import_directory(other, &ImportOptions::default()).unwrap();
}

#[test]
fn a_merge_may_not_pass_it_either() {
    let given = given();
    let image = given.project.find(&given.base.into()).unwrap();
    let commit = |path: &str, size| {
        image.edit().write(path, noise(size, size as u64)).commit(&CommitOptions::default()).unwrap().image
    };
    let (ours, theirs) = (commit("/a", 100), commit("/b", 2_000));
    given.limit(Some(1_000));
    let merged = given.project.merge(&ours.into(), &theirs.into(), &CommitOptions::default());
    assert_eq!(merged.unwrap_err().kind(), ErrorKind::QuotaExceeded);
    given.project.merge(&theirs.into(), &ours.into(), &CommitOptions::default()).unwrap();
}

#[test]
fn what_is_much_too_large_is_refused_before_it_is_stored() {
    let given = given();
    given.limit(Some(1_000_000));
    let upper = given.place.directory("upper", &[("new", &noise(60_000_000, 7))]);
    let before = given.store.catalog_bytes().unwrap();
    let _ = given.log.take();
    let base = given.base.into();
    let named = CommitOptions { base: Some(given.base.into()), ..CommitOptions::default() };
    are_refused(&[
        given.project.commit(&upper, &named),
        given.project.commit_upper(&upper, &base, OverlayMarks::User, &CommitOptions::default()),
    ]);
    let written = given.log.take().into_iter().map(|operation| match operation {
        DiskOperation::Write { bytes, .. } => bytes,
        _ => 0,
    });
    assert_eq!(written.sum::<u64>(), 0);
    assert_eq!(given.store.catalog_bytes().unwrap(), before);
    // What is there already is no new content, however much is touched.
    given.limit(None);
    given.project.commit(&upper, &named).unwrap();
    given.limit(Some(1_000_000));
    given.project.commit(&upper, &named).unwrap_err();
}

#[test]
fn a_limit_is_of_one_project() {
    let given = given();
    let error = given.store.limit_project(&parse("absent"), ProjectLimits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = given.store.limit_project(&parse("public"), ProjectLimits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    given.limit(Some(7));
    let other = project(&given.store, "other");
    assert_eq!(other.limits().unwrap(), ProjectLimits::default());
    let listed = given.store.projects().unwrap();
    let limits: Vec<_> =
        listed.iter().map(|info| (info.name.as_str(), info.limits.max_layer_bytes)).collect();
    assert_eq!(limits, [("other", None), ("p", Some(7))]);
}

#[test]
fn on_the_command_line() {
    let cli = Cli::new();
    cli.tree();
    cli.ok(&["project", "create", "p"]);
    cli.ok(&["project", "limit", "p", "--max-layer-bytes", "5"]);
    assert!(cli.ok(&["project", "ls"]).contains("5 B"));
    cli.ok(&["--project", "p", "import", "tree", "--tag", "base"]);
    cli.ok(&["--project", "p", "checkout", "base", "copy"]);
    fs::write(cli.path("copy/issue"), "longer\n").unwrap();
    let (code, message) = cli.fails(&["--project", "p", "commit", "copy"]);
    assert_eq!(code, 8);
    assert!(
        message.contains("max_layer_bytes: exceeded: what changed has 7 bytes, and the limit is 5"),
        "{message}"
    );
    cli.ok(&["project", "limit", "p", "--max-layer-bytes", "none"]);
    cli.ok(&["--project", "p", "commit", "copy"]);
    assert_eq!(cli.fails(&["project", "limit", "p", "--max-layer-bytes", "many"]).0, 2);
}
