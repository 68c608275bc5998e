//! The rules of docs/json.md, held against the program's own schema.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cli::Cli;

/// Gives each property of a schema by its name.
fn properties(schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    match schema {
        Value::Array(items) => items.iter().for_each(|item| properties(item, visit)),
        Value::Object(fields) => {
            for (name, value) in fields {
                if let ("properties", Value::Object(named)) = (name.as_str(), value) {
                    named.iter().for_each(|(name, schema)| visit(name, schema));
                }
                properties(value, visit);
            }
        }
        _ => {}
    }
}

/// What a property's values are: types, and what it refers to.
fn kinds(schema: &Value) -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for key in ["type", "$ref"] {
        match &schema[key] {
            Value::String(kind) => drop(kinds.insert(kind.clone())),
            Value::Array(all) => kinds.extend(all.iter().filter_map(Value::as_str).map(str::to_owned)),
            _ => {}
        }
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        kinds.extend(self::kinds(choice));
    }
    kinds.remove("null");
    kinds
}

#[test]
fn every_field_is_of_the_kind_that_its_name_says() {
    let schema: Value = serde_json::from_str(&Cli::new().ok(&["schema"])).unwrap();
    let mut seen = BTreeSet::new();
    properties(&schema, &mut |name, schema| {
        let expected = match name {
            "created" | "dump_written" | "later_image" => "#/$defs/Moment",
            "mode" => "#/$defs/Mode",
            "image" => "#/$defs/ImageId",
            "path_bytes" | "target_bytes" | "hard_link_to_bytes" => "string",
            name if name == "bytes" || name.starts_with("size") => "integer",
            name if ["_bytes", "_bytes_before", "_seconds", "_nanos"]
                .iter()
                .any(|end| name.ends_with(end)) =>
            {
                "integer"
            }
            _ => {
                let kinds = kinds(schema);
                assert!(!kinds.contains("#/$defs/Moment") && !kinds.contains("number"), "{name}: {kinds:?}");
                return;
            }
        };
        assert_eq!(kinds(schema), BTreeSet::from([expected.to_owned()]), "{name}: {schema}");
        seen.insert(name.to_owned());
    });
    assert!(["created", "mode", "mtime_seconds", "path_bytes"].iter().all(|name| seen.contains(*name)));
    let rules = include_str!("../../docs/json.md");
    for word in ["mtime_seconds", "mtime_nanos", "{\"conflicts\":[…]}", "--path-bytes"] {
        assert!(rules.contains(word), "{word}");
    }
}
