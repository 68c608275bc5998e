//! The part of JSON Schema that the program's own schema uses.

use serde_json::Value;

/// Fails unless the value is what the schema says, and has no property that the schema doesn't know.
pub(crate) fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let pointer = reference.strip_prefix('#').ok_or("a reference leads elsewhere")?;
        return check(root, root.pointer(pointer).ok_or("a reference leads nowhere")?, value);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = schema.get(key).and_then(Value::as_array) {
            let failures: Vec<_> =
                choices.iter().filter_map(|choice| check(root, choice, value).err()).collect();
            if failures.len() == choices.len() {
                return Err(format!("none of {key}: {}", failures.join(" / ")));
            }
        }
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!("{value} is not {}", schema["const"]));
    }
    if let Some(choices) = schema.get("enum").and_then(Value::as_array)
        && !choices.contains(value)
    {
        return Err(format!("{value} is not one of {choices:?}"));
    }
    if let Some(types) = schema.get("type") {
        let is_one = |name: &Value| name.as_str().is_some_and(|name| is_of(value, name));
        if !(is_one(types) || types.as_array().is_some_and(|types| types.iter().any(is_one))) {
            return Err(format!("{value} is no {types}"));
        }
    } else if !["anyOf", "oneOf", "const", "enum"].iter().any(|key| schema.get(key).is_some()) {
        return Err(format!("{schema} says nothing"));
    }
    match value {
        Value::Array(items) if schema.get("items").is_some() => {
            items.iter().try_for_each(|item| check(root, &schema["items"], item))
        }
        Value::Object(properties) if schema.get("properties").is_some() => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            if let Some(missing) = required.into_iter().find(|name| !properties.contains_key(*name)) {
                return Err(format!("'{missing}' is missing"));
            }
            properties.iter().try_for_each(|(name, value)| match schema["properties"].get(name) {
                Some(schema) => check(root, schema, value).map_err(|why| format!("{name}: {why}")),
                None => Err(format!("'{name}' is not in the schema")),
            })
        }
        _ => Ok(()),
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
