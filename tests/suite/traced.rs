//! Spans and events of the library's calls, as a subscriber sees them, and `LAYERSTONE_LOG`.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use layerstone::{CheckoutOptions, CommitOptions, ExportOptions, GcOptions, ImportOptions, Store};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::cli::Cli;
use crate::given::Place;

/// The names of spans and the messages of events, as they come.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<String>>>);

struct Message<'n>(&'n Names);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.0.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

impl Subscriber for Names {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("layerstone")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut names = self.0.lock().unwrap();
        names.push(span.metadata().name().to_owned());
        Id::from_u64(names.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Message(self));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_subscriber_sees_what_the_store_does() {
    let place = Place::new();
    std::fs::create_dir(place.path("source")).unwrap();
    std::fs::write(place.path("source/file"), "one").unwrap();
    let names = Names::default();
    tracing::subscriber::with_default(names.clone(), || {
        let store = Store::open(place.path("store")).unwrap();
        let project = store.default_project().unwrap();
        let made = project.import_directory(place.path("source"), &ImportOptions::default()).unwrap();
        let image = project.find(&made.image.into()).unwrap();
        image.check_out(place.path("work"), CheckoutOptions::default()).unwrap();
        std::fs::write(place.path("work/file"), "two").unwrap();
        project.commit(place.path("work"), &CommitOptions::default()).unwrap();
        image.export(&mut Vec::new(), &ExportOptions::default()).unwrap();
        store.collect_garbage(&GcOptions::default()).unwrap();
        store.verify().unwrap();
    });
    let mut names = names.0.lock().unwrap().clone();
    names.retain(|name| name != "publish" && name != "published");
    let expected = [
        "open",
        "import",
        "made an image",
        "checkout",
        "commit",
        "made an image",
        "export",
        "collect",
        "verify",
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_command_prints_them_where_it_is_asked_to() {
    let cli = Cli::new();
    std::fs::create_dir(cli.path("source")).unwrap();
    let import = |log: &str| {
        let output = cli.command(&["import", "source"]).env("LAYERSTONE_LOG", log).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) = import("info");
    assert_eq!(code, Some(0));
    assert!(stderr.contains("import{project=default") && stderr.contains("made an image"), "{stderr}");
    assert_eq!(import(""), (Some(0), String::new()));
    let (code, stderr) = import("loud");
    assert_eq!(code, Some(2));
    assert!(stderr.contains("LAYERSTONE_LOG: expected off, error, warn, info, debug or trace"), "{stderr}");
}
