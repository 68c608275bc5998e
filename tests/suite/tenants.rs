//! No answer that a project gets tells of another: what is foreign and what nobody has are the same to it.

use std::fmt::Debug;
use std::path::PathBuf;

use layerstone::id::ImageId;
use layerstone::{
    CheckoutOptions, CommitOptions, Expected, ImageRef, ImportOptions, ListOptions, OverlayMarks, Project,
    StoreOptions, WorkspaceOptions,
};

use crate::given::{Place, parse, project, reference, tags};

const ABSENT: &str = "0190c8f0-0000-7000-8000-000000000000";

struct Given {
    place: Place,
    /// Who has a secret, an image that came of it, and a tag of it.
    other: Project,
    secret: ImageId,
    /// Who asks.
    project: Project,
    own: ImageId,
}

impl Given {
    fn new() -> Self {
        let place = Place::new();
        let store = StoreOptions::default().open(place.path("store")).unwrap();
        let (other, project) = (project(&store, "other"), project(&store, "asking"));
        let secret = place.import(&other, "secret", &["theirs"]);
        other
            .find(&secret.into())
            .unwrap()
            .edit()
            .write("/more", "more")
            .commit(&CommitOptions::default())
            .unwrap();
        let own = place.import(&project, "own", &["ours"]);
        Self { place, other, secret, project, own }
    }
}

fn absent() -> ImageId {
    match reference(ABSENT) {
        ImageRef::Id(id) => id,
        other => panic!("{other:?}"),
    }
}

/// All that an answer says, without the image that was asked for.
fn said<T: Debug>(answer: layerstone::Result<T>, asked: ImageId) -> String {
    let text = match answer {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?} {:?} {error}", error.kind(), std::error::Error::source(&error)),
    };
    text.replace(&asked.to_string(), "ASKED")
}

/// A call, and what it answers about an image.
type Call = (&'static str, Box<dyn Fn(&Given, ImageId) -> String>);

fn call<T: Debug>(
    name: &'static str,
    ask: impl Fn(&Given, ImageId) -> layerstone::Result<T> + 'static,
) -> Call {
    (name, Box::new(move |given, id| said(ask(given, id), id)))
}

fn based_on(id: ImageId) -> CommitOptions {
    CommitOptions { base: Some(id.into()), ..CommitOptions::default() }
}

fn calls() -> Vec<Call> {
    let commit = CommitOptions::default;
    vec![
        call("find", |given, id| given.project.find(&id.into()).map(drop)),
        call("resolve", |given, id| given.project.resolve(&id.into())),
        call("image", |given, id| given.project.image(id.into()).find().map(drop)),
        call("tag", |given, id| given.project.tag(&id.into(), &tags(&["new"]))),
        call("tag_if", |given, id| given.project.tag_if(&id.into(), &parse("new"), Expected::Absent)),
        call("tag_if expecting it", |given, id| {
            given.project.tag_if(&given.own.into(), &parse("ours"), Expected::Image(id))
        }),
        call("tag_if expecting it of no tag", |given, id| {
            given.project.tag_if(&given.own.into(), &parse("none"), Expected::Image(id))
        }),
        call("untag", |given, id| given.project.untag(&parse("ours"), Some(&id.into()))),
        call("untag of no tag", |given, id| given.project.untag(&parse("theirs"), Some(&id.into()))),
        call("untag_all", |given, id| given.project.untag_all(&id.into())),
        call("remove", |given, id| given.project.remove(&id.into(), false)),
        call("remove by force", |given, id| given.project.remove(&id.into(), true)),
        call("images", |given, id| {
            given.project.images(&ListOptions { id: Some(id), ..ListOptions::default() })
        }),
        call("parent", |given, id| given.project.parent(id)),
        call("children", |given, id| given.project.children(id)),
        call("ancestors", |given, id| given.project.ancestors(id)),
        call("common_ancestor", |given, id| given.project.common_ancestor(id, given.own)),
        call("common_ancestor the other way", |given, id| given.project.common_ancestor(given.own, id)),
        call("lineage", |given, id| given.project.lineage(Some(&id.into()))),
        call("merge ours", move |given, id| {
            given.project.merge(&id.into(), &given.own.into(), &commit()).map(drop)
        }),
        call("merge theirs", move |given, id| {
            given.project.merge(&given.own.into(), &id.into(), &commit()).map(drop)
        }),
        call("commit", |given, id| given.project.commit(given.place.path("imported"), &based_on(id))),
        call("commit_upper", |given, id| {
            let upper = given.place.path("imported");
            given.project.commit_upper(upper, &id.into(), OverlayMarks::User, &CommitOptions::default())
        }),
    ]
}

#[test]
fn a_foreign_image_is_one_that_nobody_has() {
    let given = Given::new();
    for (name, ask) in calls() {
        assert_eq!(ask(&given, given.secret), ask(&given, absent()), "{name}");
    }
    given.other.find(&given.secret.into()).unwrap();
    assert_eq!(given.other.resolve(&reference("theirs")).unwrap().id, given.secret);
}

#[test]
fn names_of_others_are_names_that_nobody_has() {
    let given = Given::new();
    let answers = |tag: &str, workspace: &str| {
        let asked = given.secret;
        let texts = [
            said(given.project.find(&reference(tag)).map(drop), asked),
            said(given.project.tag(&reference(tag), &tags(&["new"])), asked),
            said(given.project.untag(&parse(tag), None), asked),
            said(given.project.remove(&reference(tag), true), asked),
            said(given.project.workspace(&parse(workspace)).map(drop), asked),
        ];
        texts.map(|text| text.replace(tag, "TAG").replace(workspace, "WORKSPACE"))
    };
    let options =
        WorkspaceOptions { name: Some(parse("theirs-too")), full_copy: true, ..WorkspaceOptions::default() };
    let workspace = given.other.find(&given.secret.into()).unwrap().create_workspace(&options).unwrap();
    assert_eq!(answers("theirs", "theirs-too"), answers("nobodys", "nobodys-too"));
    let own = given.project.find(&given.own.into()).unwrap();
    own.create_workspace(&options).unwrap().discard().expect("its name is free");
    workspace.discard().unwrap();
}

/// What another project checked out or imported is a directory like any other.
#[test]
fn directories_of_others_are_directories() {
    let given = Given::new();
    let checkout = given.place.path("checkout");
    let secret = given.other.find(&given.secret.into()).unwrap();
    secret.check_out(&checkout, CheckoutOptions::default()).unwrap();
    let unknown = given.place.directory("unknown", &[("content", b"secret")]);
    let answer = |directory: &PathBuf| {
        let text = said(given.project.commit(directory, &CommitOptions::default()), given.secret);
        text.replace(directory.to_str().unwrap(), "DIRECTORY")
    };
    assert_eq!(answer(&checkout), answer(&unknown));
    let again = given.project.import_directory(&checkout, &ImportOptions::default()).unwrap();
    assert_eq!((again.is_new, again.examined), (true, 2), "it is read like one that nobody knows");
    assert_ne!(again.image, given.secret);
    given.other.commit(&checkout, &CommitOptions::default()).expect("it is still theirs");
}

/// What a project can list does not depend on others.
#[test]
fn listings_are_of_one_project() {
    let given = Given::new();
    let listed = || {
        let page = given.project.images(&ListOptions { limit: None, ..ListOptions::default() }).unwrap();
        (format!("{page:?}"), format!("{:?}", given.project.lineage(None).unwrap()))
    };
    let before = listed();
    given.place.import(&given.other, "another secret", &["theirs:2"]);
    given.other.remove(&given.secret.into(), true).unwrap();
    assert_eq!(listed(), before);
    let after =
        |id| said(given.project.images(&ListOptions { after: Some(id), ..ListOptions::default() }), id);
    let other = place_in_time(&given);
    assert_eq!(after(given.secret), after(other));
}

/// An id that nobody has, of the same moment as the secret one.
fn place_in_time(given: &Given) -> ImageId {
    let text = given.secret.to_string();
    let (front, last) = text.split_at(text.len() - 1);
    let changed = if last == "0" { "1" } else { "0" };
    match reference(&format!("{front}{changed}")) {
        ImageRef::Id(id) => id,
        other => panic!("{other:?}"),
    }
}
