//! As much of JSON Schema as the published schemas use, and stricter: a key that no schema names is a fault.

use std::path::Path;

use serde_json::Value;

/// What says nothing about a value here: words for people, and bounds of numbers that Rust's types keep.
const SILENT: [&str; 9] =
    ["$schema", "$defs", "title", "description", "format", "default", "minimum", "maximum", "properties"];
const KNOWN: [&str; 10] =
    ["$ref", "anyOf", "oneOf", "type", "const", "enum", "items", "required", "additionalProperties", "minItems"];

/// A published schema, `docs/schemas/<name>.schema.json`.
pub fn published(name: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("docs/schemas/{name}.schema.json"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).unwrap()
}

/// The value is as the schema says.
#[track_caller]
pub fn assert_fits(schema: &Value, value: &Value) {
    if let Err(fault) = fits(schema, schema, value, "$") {
        panic!("{fault}: {value:#}");
    }
}

fn fits(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(schema) = schema.as_object() else {
        return if schema == &Value::Bool(true) { Ok(()) } else { Err(format!("{at}: nothing is allowed here")) };
    };
    let unknown = schema
        .keys()
        .find(|key| !SILENT.contains(&key.as_str()) && !KNOWN.contains(&key.as_str()) && *key != "maxItems");
    assert!(unknown.is_none(), "{at}: the test does not know the keyword {unknown:?}");
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = root.pointer(&reference[1..]).unwrap_or_else(|| panic!("{at}: no {reference}"));
        fits(root, target, value, at)?;
    }
    for words in ["anyOf", "oneOf"] {
        if let Some(options) = schema.get(words).and_then(Value::as_array) {
            let faults: Vec<String> = options.iter().filter_map(|option| fits(root, option, value, at).err()).collect();
            if faults.len() == options.len() {
                return Err(format!("{at} fits nothing of {words}: {}", faults.join("; ")));
            }
        }
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |wanted: &Value| wanted == kind || (wanted == "number" && kind == "integer");
    match schema.get("type") {
        Some(Value::Array(wanted)) if !wanted.iter().any(is) => {
            return Err(format!("{at}: {kind} is not in {wanted:?}"));
        }
        Some(wanted @ Value::String(_)) if !is(wanted) => return Err(format!("{at}: {kind} is not {wanted}")),
        _ => {}
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return Err(format!("{at}: {value} is not {}", schema["const"]));
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|allowed| !allowed.contains(value)) {
        return Err(format!("{at}: {value} is not in {}", schema["enum"]));
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (index, value) in values.iter().enumerate() {
            fits(root, items, value, &format!("{at}[{index}]"))?;
        }
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(key) {
            return Err(format!("{at}: {key} is missing"));
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let others = schema.get("additionalProperties");
    if properties.is_none() && others.is_none() {
        return Ok(());
    }
    for (key, value) in object {
        match (properties.and_then(|known| known.get(key)), others) {
            (Some(schema), _) | (None, Some(schema)) => fits(root, schema, value, &format!("{at}.{key}"))?,
            (None, None) => return Err(format!("{at}.{key} is not in the schema")),
        }
    }
    Ok(())
}
