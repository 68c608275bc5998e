//! Projects, tags, references, removal, listings: what each call promises.

use layerstone::id::ImageId;
use layerstone::{
    ErrorKind, Expected, ImageKind, ImageRef, ImportOptions, ListOptions, Moment, Project, Scope, Store,
};

use crate::given::{Place, parse, project, read, reference, tags};

fn ids(project: &Project, options: &ListOptions) -> Vec<ImageId> {
    project.images(options).unwrap().images.into_iter().map(|image| image.id).collect()
}

fn kind<T: std::fmt::Debug>(result: layerstone::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

fn tag_names(project: &Project, id: ImageId) -> Vec<String> {
    let image = project.find(&id.into()).unwrap();
    image.info().tags.iter().map(ToString::to_string).collect()
}

#[test]
fn projects_are_made_found_listed_and_removed() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    assert_eq!(kind(store.project(&parse("a"))), ErrorKind::NotFound);
    let a = project(&store, "a");
    assert_eq!(kind(store.create_project(&parse("a"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(store.create_project(&parse("public"))), ErrorKind::Invalid);
    assert!(store.project(&parse("public")).unwrap().is_public());
    assert!(!a.is_public());
    let id = place.import(&store.default_project().unwrap(), "default", &[]);
    store.default_project().unwrap().resolve(&id.into()).expect("the default project is made once");
    place.import(&a, "one", &["x"]);
    let infos = store.projects().unwrap();
    let shown: Vec<_> = infos.iter().map(|info| (info.name.as_str(), info.image_count)).collect();
    assert_eq!(shown, [("a", 1), ("default", 1)]);

    assert_eq!(kind(store.remove_project(&parse("a"), false)), ErrorKind::Conflict);
    store.remove_project(&parse("a"), true).unwrap();
    assert_eq!(kind(store.project(&parse("a"))), ErrorKind::NotFound);
    assert_eq!(kind(a.resolve(&reference("x"))), ErrorKind::NotFound, "an old handle is of no use");
    let again = project(&store, "a");
    assert_eq!(kind(again.resolve(&reference("x"))), ErrorKind::NotFound, "nothing is inherited");
    assert_eq!(kind(a.images(&ListOptions::default())), ErrorKind::NotFound);
}

#[test]
fn another_projects_image_is_not_found_like_one_that_nobody_has() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let (a, b) = (project(&store, "a"), project(&store, "b"));
    let id = place.import(&a, "secret", &["t"]);
    let foreign = b.find(&id.into()).unwrap_err();
    let absent_id = "0190c8f0-0000-7000-8000-000000000000";
    let absent = b.find(&reference(absent_id)).unwrap_err();
    assert!(foreign.is_not_found());
    assert_eq!(
        foreign.to_string().replace(&id.to_string(), absent_id),
        absent.to_string(),
        "no word may tell them apart"
    );
    for result in [
        b.tag(&id.into(), &tags(&["mine"])).map(drop),
        b.untag_all(&id.into()).map(drop),
        b.remove(&id.into(), true).map(drop),
        b.resolve(&reference("t")).map(drop),
    ] {
        assert_eq!(kind(result), ErrorKind::NotFound);
    }
    assert_eq!(ids(&b, &ListOptions { id: Some(id), ..ListOptions::default() }), []);
    let after = ListOptions { after: Some(id), ..ListOptions::default() };
    assert_eq!(ids(&b, &after), []);
    let own = place.import(&b, "secret", &[]);
    assert_ne!(own, id, "equal content in two projects is two images");
}

#[test]
fn tags_move_and_several_are_set_all_or_none() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let a = project(&store, "a");
    let (one, two) = (place.import(&a, "one", &["t", "u"]), place.import(&a, "two", &["t"]));
    assert_eq!(a.resolve(&reference("t")).unwrap().id, two);
    assert_eq!(tag_names(&a, one), ["u"]);
    a.tag(&one.into(), &tags(&["t", "v"])).unwrap();
    assert_eq!(tag_names(&a, one), ["t", "u", "v"]);
    assert_eq!(tag_names(&a, two), [] as [&str; 0]);

    assert_eq!(kind(a.tag(&reference("absent"), &tags(&["w", "x"]))), ErrorKind::NotFound);
    for name in ["w", "x"] {
        assert_eq!(kind(a.resolve(&reference(name))), ErrorKind::NotFound);
    }
    assert_eq!(kind(a.untag(&parse("t"), Some(&two.into()))), ErrorKind::Conflict);
    assert_eq!(a.untag(&parse("t"), Some(&one.into())).unwrap(), one);
    assert_eq!(kind(a.untag(&parse("t"), None)), ErrorKind::NotFound);
    assert_eq!(a.untag_all(&one.into()).unwrap(), tags(&["u", "v"]));
    assert_eq!(a.resolve(&one.into()).unwrap().id, one, "untagging removes no image");
}

#[test]
fn a_conditional_move_has_one_winner() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let a = project(&store, "a");
    let (one, two) = (place.import(&a, "one", &[]), place.import(&a, "two", &[]));
    let name = parse("t");
    assert_eq!(kind(a.tag_if(&one.into(), &name, Expected::Image(two))), ErrorKind::Conflict);
    a.tag_if(&one.into(), &name, Expected::Absent).unwrap();
    let error = a.tag_if(&two.into(), &name, Expected::Absent).unwrap_err();
    assert!(error.is_conflict() && error.to_string().contains(&one.to_string()), "{error}");
    a.tag_if(&two.into(), &name, Expected::Image(one)).unwrap();
    assert_eq!(kind(a.tag_if(&one.into(), &name, Expected::Image(one))), ErrorKind::Conflict);
    assert_eq!(a.resolve(&reference("t")).unwrap().id, two);
}

#[test]
fn a_projects_tag_shadows_the_public_one_and_reveals_it_when_it_goes() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let (public, a) = (project(&store, "public"), project(&store, "a"));
    let theirs = place.import(&public, "public", &["t"]);
    let seen = a.resolve(&reference("t")).unwrap();
    assert_eq!((seen.id, seen.scope), (theirs, Scope::Public));
    let own = place.import(&a, "own", &["t"]);
    let seen = a.resolve(&reference("t")).unwrap();
    assert_eq!((seen.id, seen.scope), (own, Scope::Project));
    assert_eq!(a.resolve(&theirs.into()).unwrap().id, theirs, "hidden, but reachable by UUID");
    assert_eq!(tag_names(&a, theirs), [] as [&str; 0], "a shadowed tag is not shown");
    let tagged = ListOptions { tagged_only: true, ..ListOptions::default() };
    assert_eq!(ids(&a, &tagged), [own]);
    assert_eq!(ids(&a, &ListOptions { prefix: Some("t".into()), ..ListOptions::default() }), [own]);
    a.untag(&parse("t"), None).unwrap();
    assert_eq!(a.resolve(&reference("t")).unwrap().id, theirs);
    assert_eq!(ids(&a, &tagged), [theirs]);
    assert_eq!(kind(a.untag(&parse("t"), None)), ErrorKind::Invalid, "the public scope is only read");
    assert_eq!(kind(a.remove(&reference("t"), true)), ErrorKind::Invalid);
    assert_eq!(kind(a.remove(&theirs.into(), true)), ErrorKind::Invalid);
}

#[test]
fn an_adopted_public_image_lives_until_the_projects_tag_goes() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let (public, a, b) = (project(&store, "public"), project(&store, "a"), project(&store, "b"));
    let old = place.import(&public, "old", &["t"]);
    a.tag(&reference("t"), &tags(&["t", "mine"])).unwrap();
    let new = place.import(&public, "new", &["t"]);
    assert_eq!(a.resolve(&reference("t")).unwrap().id, old, "the name is frozen for the project");
    assert_eq!(b.resolve(&reference("t")).unwrap().id, new);

    assert_eq!(public.remove(&old.into(), false).unwrap().removed, Some(old));
    assert_eq!(kind(b.resolve(&old.into())), ErrorKind::NotFound);
    assert_eq!(read(&a.find(&reference("mine")).unwrap(), "content").unwrap(), b"old");
    assert_eq!(a.find(&old.into()).unwrap().info().scope, Scope::Public);
    assert_eq!(ids(&a, &ListOptions::default()), [new, old]);
    a.untag(&parse("t"), None).unwrap();
    assert_eq!(a.resolve(&reference("t")).unwrap().id, new);
    let report = a.remove(&reference("mine"), false).unwrap();
    assert_eq!(report.untagged, tags(&["mine"]));
    assert_eq!(kind(a.resolve(&old.into())), ErrorKind::NotFound, "its last tag is gone");
}

#[test]
fn a_name_without_colon_also_means_its_latest() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let (public, a) = (project(&store, "public"), project(&store, "a"));
    let latest = place.import(&a, "latest", &["img:latest"]);
    let seen = a.resolve(&reference("img")).unwrap();
    assert_eq!((seen.id, seen.tag), (latest, Some(parse("img:latest"))));
    let literal = place.import(&public, "literal", &["img"]);
    assert_eq!(a.resolve(&reference("img")).unwrap().id, literal, "the literal tag comes first");
    assert_eq!(a.resolve(&reference("tag:img")).unwrap().id, literal);
    assert_eq!(kind(a.resolve(&reference("img:other"))), ErrorKind::NotFound);
}

#[test]
fn removal_follows_tags() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let a = project(&store, "a");
    let id = place.import(&a, "one", &["x", "y", "z"]);
    let report = a.remove(&reference("x"), false).unwrap();
    assert_eq!((report.untagged, report.removed), (tags(&["x"]), None));
    assert_eq!(kind(a.remove(&id.into(), false)), ErrorKind::Conflict);
    assert_eq!(tag_names(&a, id), ["y", "z"], "a refused removal changes nothing");
    a.remove(&reference("y"), false).unwrap();
    let report = a.remove(&reference("z"), false).unwrap();
    assert_eq!((report.untagged, report.removed), (tags(&["z"]), Some(id)));
    assert_eq!(kind(a.find(&id.into())), ErrorKind::NotFound);

    let id = place.import(&a, "two", &["x", "y"]);
    let report = a.remove(&id.into(), true).unwrap();
    assert_eq!((report.untagged, report.removed), (tags(&["x", "y"]), Some(id)));
    assert_eq!(kind(a.resolve(&reference("x"))), ErrorKind::NotFound);
    let id = place.import(&a, "three", &["only"]);
    assert_eq!(a.remove(&id.into(), false).unwrap().removed, Some(id), "one tag goes with its image");
}

#[test]
fn children_of_a_removed_image_live_on() {
    let place = Place::new();
    let store = Store::open(place.path("store")).unwrap();
    let a = project(&store, "a");
    let parent = place.import(&a, "one", &["p"]);
    let directory = place.path("checkout");
    a.find(&parent.into()).unwrap().check_out(&directory, layerstone::CheckoutOptions::default()).unwrap();
    std::fs::write(directory.join("more"), "more").unwrap();
    let child = a.commit(&directory, &layerstone::CommitOptions::default()).unwrap().image;
    a.remove(&parent.into(), false).unwrap();
    let image = a.find(&child.into()).unwrap();
    assert_eq!(image.info().parent, Some(parent));
    assert_eq!(image.info().kind, ImageKind::Committed);
    assert_eq!(read(&image, "content").unwrap(), b"one");
    assert_eq!(image.history().unwrap().len(), 2);
}

#[test]
fn listings_are_newest_first_and_filtered() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let (public, a) = (project(&store, "public"), project(&store, "a"));
    let made = [
        place.import(&a, "0", &["app/one"]),
        place.import(&public, "1", &["app/two"]),
        place.import(&a, "2", &[]),
        place.import(&a, "3", &["base"]),
    ];
    let all = ListOptions::default();
    assert_eq!(ids(&a, &all), [made[3], made[2], made[1], made[0]]);
    assert_eq!(ids(&a, &ListOptions { tagged_only: true, ..all.clone() }), [made[3], made[1], made[0]]);
    assert_eq!(ids(&a, &ListOptions { prefix: Some("app/".into()), ..all.clone() }), [made[1], made[0]]);
    assert_eq!(ids(&a, &ListOptions { id: Some(made[2]), ..all.clone() }), [made[2]]);
    assert_eq!(ids(&a, &ListOptions { kind: Some(ImageKind::Committed), ..all.clone() }), []);
    assert_eq!(ids(&a, &ListOptions { kind: Some(ImageKind::Imported), ..all.clone() }).len(), 4);
    assert_eq!(ids(&public, &all), [made[1]], "the public scope sees only itself");
    let moment = a.find(&made[2].into()).unwrap().info().created;
    let later = Moment::from_unix_ms(moment.unix_ms() + 1);
    assert!(ids(&a, &ListOptions { since: Some(moment), ..all.clone() }).contains(&made[2]));
    assert!(!ids(&a, &ListOptions { since: Some(later), ..all.clone() }).contains(&made[2]));
    assert!(!ids(&a, &ListOptions { until: Some(moment), ..all.clone() }).contains(&made[2]));
    assert!(ids(&a, &ListOptions { until: Some(later), ..all }).contains(&made[2]));
}

#[test]
fn pages_stay_put_while_others_write() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let a = project(&store, "a");
    let mut made: Vec<_> = (0..7).map(|i| place.import(&a, &format!("{i}"), &[])).collect();
    made.reverse();
    let mut options = ListOptions { limit: Some(3), ..ListOptions::default() };
    let mut seen = Vec::new();
    loop {
        let page = a.images(&options).unwrap();
        assert!(page.images.len() <= 3);
        seen.extend(page.images.iter().map(|image| image.id));
        place.import(&a, &format!("between {}", seen.len()), &[]);
        let Some(next) = page.next else { break };
        options.after = Some(next);
    }
    assert_eq!(seen, made);
    let exact = ListOptions { limit: Some(10), ..ListOptions::default() };
    assert_eq!(a.images(&exact).unwrap().next, None, "a page that holds all has no next");
}

#[test]
fn the_same_content_again_is_the_same_image() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let a = project(&store, "a");
    let directory = place.directory("d", &[("x", b"x"), ("y/z", &vec![7; 100_000])]);
    let first = a.import_directory(&directory, &ImportOptions::default()).unwrap();
    assert!(first.is_new && first.stored_bytes > 0 && first.new_bytes > 100_000);
    let options = ImportOptions { tags: tags(&["t"]), comment: "another".into(), ..ImportOptions::default() };
    let second = a.import_directory(&directory, &options).unwrap();
    assert_eq!((second.image, second.is_new), (first.image, false));
    assert_eq!((second.new_bytes, second.stored_bytes), (0, 0));
    assert_eq!(a.resolve(&reference("t")).unwrap().id, first.image, "the tags are set all the same");
    a.remove(&first.image.into(), true).unwrap();
    let third = a.import_directory(&directory, &ImportOptions::default()).unwrap();
    assert!(third.is_new && third.image != first.image, "a removed image does not come back");
}

#[test]
fn lazy_handles_resolve_when_used() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let a = project(&store, "a");
    let lazy = a.image(reference("later"));
    assert!(lazy.find().unwrap_err().is_not_found());
    let one = place.import(&a, "one", &["later"]);
    assert_eq!(lazy.find().unwrap().id(), one);
    let two = place.import(&a, "two", &["later"]);
    assert_eq!(lazy.find().unwrap().id(), two);
    let strict = a.find(&reference("later")).unwrap();
    a.remove(&ImageRef::from(two), true).unwrap();
    assert_eq!(read(&strict, "content").unwrap(), b"two", "a found image stays readable");
}

#[test]
fn three_ways_to_ask_for_the_wrong_thing() {
    let (place, store) = (Place::new(), Store::in_memory().unwrap());
    let a = project(&store, "a");
    let directory = place.directory("d", &[("file", b"x"), ("dir/inner", b"y")]);
    let id = a.import_directory(&directory, &ImportOptions::default()).unwrap().image;
    let image = a.find(&id.into()).unwrap();
    let message = |path| read(&image, path).unwrap_err();
    assert_eq!(message("missing").kind(), ErrorKind::NotFound);
    assert_eq!(message("dir").kind(), ErrorKind::Invalid);
    assert_eq!(message("file/inner").kind(), ErrorKind::Invalid);
    assert_ne!(message("dir").to_string(), message("file/inner").to_string());
    assert_eq!(kind(a.import_directory(place.path("none"), &ImportOptions::default())), ErrorKind::NotFound);
    let file = directory.join("file");
    assert_eq!(kind(a.import_directory(file, &ImportOptions::default())), ErrorKind::Invalid);
}
