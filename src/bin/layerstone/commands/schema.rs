//! `schema`: says what the JSON of each command is, as JSON Schema.

use clap::Args;
use layerstone::id::ImageId;
use layerstone::{
    Difference, EntryInfo, ImageInfo, LayerInfo, LineageNode, ProjectInfo, WorkspaceInfo, WriteReport,
};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{
    Outcome, checkout, export, gc, init, merge, project, repair, rm, tag, untag, usage, verify, workspace,
};
use crate::output::{ErrorReport, Output};

/// Print the JSON Schema of what commands print with --json
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  layerstone schema\n  layerstone schema workspace ls")]
pub(crate) struct SchemaArguments {
    /// Command to print the schema of, or `error` for failures [default: all, each as a property]
    command: Vec<String>,
}

pub(super) fn run(arguments: &SchemaArguments) -> Outcome {
    let wanted = Some(arguments.command.join(" ")).filter(|wanted| !wanted.is_empty());
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let outputs = outputs(&mut generator, wanted.as_deref());
    let mut document = Map::new();
    document.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    if let Some(wanted) = wanted {
        let (_, schema) = outputs.into_iter().next().ok_or_else(|| {
            let wanted = wanted.escape_debug();
            usage("schema", &format!("'{wanted}' prints no JSON; 'layerstone schema' has all that do"))
        })?;
        document.insert("title".into(), json!(format!("What 'layerstone {wanted}' prints with --json")));
        if let Value::Object(schema) = schema.into() {
            document.extend(schema);
        }
    } else {
        document.insert("title".into(), json!("What each command of layerstone prints with --json"));
        let named = outputs.into_iter().map(|(command, schema)| (command.to_owned(), schema.into()));
        document.insert("properties".into(), Value::Object(named.collect()));
    }
    document.insert("$defs".into(), Value::Object(generator.take_definitions(true)));
    let mut document = Value::Object(document);
    make_plain(&mut document);
    Ok(Output::json(&document)?)
}

/// Takes the links out of descriptions, which are those of the library's documentation.
fn make_plain(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(make_plain),
        Value::Object(properties) => {
            for (name, value) in properties {
                match value {
                    Value::String(text) if name == "description" => *text = without_links(text),
                    value => make_plain(value),
                }
            }
        }
        _ => {}
    }
}

/// Text without the targets of its links: `[text](target)` and ``[`name`]`` are their text.
fn without_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        let Some((name, after)) = link.split_once(']') else {
            plain.push('[');
            rest = link;
            break;
        };
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        match target {
            Some((_, after)) => {
                plain.push_str(name);
                rest = after;
            }
            None if name.starts_with('`') => {
                plain.push_str(name);
                rest = after;
            }
            None => {
                plain.push('[');
                rest = link;
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// The commands that print JSON, and failures as `error`: all, or the one that is wanted.
fn outputs(generator: &mut SchemaGenerator, wanted: Option<&str>) -> Vec<(&'static str, Schema)> {
    let mut of = Outputs { generator, wanted, found: Vec::new() };
    of.one::<checkout::CheckedOut>("checkout");
    of.one::<WriteReport>("commit");
    of.one::<Vec<Difference>>("diff");
    of.one::<ErrorReport>("error");
    of.one::<export::Exported>("export");
    of.one::<gc::Collected>("gc");
    of.one::<Vec<LayerInfo>>("history");
    of.one::<Vec<ImageInfo>>("images");
    of.one::<Vec<ImageId>>("images --quiet");
    of.one::<WriteReport>("import");
    of.one::<init::Made>("init");
    of.one::<Vec<ImageInfo>>("inspect");
    of.one::<Vec<EntryInfo>>("ls");
    of.any_of::<WriteReport, merge::Conflicts>("merge");
    of.one::<ProjectInfo>("project create");
    of.one::<ProjectInfo>("project limit");
    of.one::<Vec<ProjectInfo>>("project ls");
    of.one::<Vec<project::Removed>>("project rm");
    of.one::<repair::Repaired>("repair");
    of.one::<Vec<rm::Removed>>("rm");
    of.one::<super::run::Ran>("run");
    of.any_of::<tag::Tagged, Vec<untag::Untagged>>("tag");
    of.one::<Vec<LineageNode>>("tree");
    of.one::<Vec<untag::Untagged>>("untag");
    of.one::<verify::Verified>("verify");
    of.one::<workspace::Committed>("workspace commit");
    of.one::<workspace::Created>("workspace create");
    of.one::<Vec<workspace::Discarded>>("workspace discard");
    of.one::<Vec<WorkspaceInfo>>("workspace ls");
    of.one::<WorkspaceInfo>("workspace path");
    of.found
}

struct Outputs<'g> {
    generator: &'g mut SchemaGenerator,
    wanted: Option<&'g str>,
    found: Vec<(&'static str, Schema)>,
}

impl Outputs<'_> {
    fn one<T: JsonSchema>(&mut self, command: &'static str) {
        self.add(command, SchemaGenerator::subschema_for::<T>);
    }

    fn any_of<A: JsonSchema, B: JsonSchema>(&mut self, command: &'static str) {
        self.add(command, |generator| {
            let (a, b) = (generator.subschema_for::<A>(), generator.subschema_for::<B>());
            schemars::json_schema!({ "anyOf": [a, b] })
        });
    }

    fn add(&mut self, command: &'static str, schema: impl Fn(&mut SchemaGenerator) -> Schema) {
        if self.wanted.is_none_or(|wanted| wanted == command) {
            self.found.push((command, schema(self.generator)));
        }
    }
}
