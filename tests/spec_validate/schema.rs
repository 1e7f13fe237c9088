//! As much of JSON Schema (draft 4) as the runtime spec's schemas use.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Holds the schema files read so far.
pub struct Checker {
    dir: PathBuf,
    files: HashMap<String, Value>,
}

impl Checker {
    pub fn new(dir: &Path) -> Self {
        Checker { dir: dir.to_owned(), files: HashMap::new() }
    }

    /// Checks a document against a schema file.
    pub fn check(&mut self, file: &str, document: &Value) -> Result<(), String> {
        let schema = self.file(file);
        self.value(file, &schema, document, "$")
    }

    fn file(&mut self, name: &str) -> Value {
        let path = self.dir.join(name);
        let read = || serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        self.files.entry(name.to_owned()).or_insert_with(read).clone()
    }

    fn value(&mut self, file: &str, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let (other, pointer) = target.split_once('#').unwrap();
            let other = if other.is_empty() { file } else { other };
            let root = self.file(other);
            let schema = root.pointer(pointer).unwrap_or_else(|| panic!("{target} leads nowhere"));
            return self.value(other, schema, value, at);
        }
        if let Some(kind) = schema.get("type").and_then(Value::as_str) {
            let fits = match kind {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("type {other} is not known here"),
            };
            if !fits {
                return Err(format!("{at}: {value} is no {kind}"));
            }
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array)
            && !words.contains(value)
        {
            return Err(format!("{at}: {value} is not one of the words"));
        }
        if let (Some(pattern), Some(text)) = (schema.get("pattern").and_then(Value::as_str), value.as_str())
            && !matches(pattern, text)
        {
            return Err(format!("{at}: {value} does not match {pattern}"));
        }
        if let Some(number) = value.as_i64() {
            let bound = |name| schema.get(name).and_then(Value::as_i64);
            if bound("minimum").is_some_and(|min| number < min) || bound("maximum").is_some_and(|max| number > max) {
                return Err(format!("{at}: {number} is out of range"));
            }
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.value(file, part, value, at)?;
        }
        if let Some(parts) = schema.get("anyOf").and_then(Value::as_array)
            && !parts.iter().any(|part| self.value(file, part, value, at).is_ok())
        {
            return Err(format!("{at}: {value} fits none of the alternatives"));
        }
        if let Some(items) = value.as_array() {
            if schema.get("minItems").and_then(Value::as_u64).is_some_and(|min| (items.len() as u64) < min) {
                return Err(format!("{at}: is too short"));
            }
            if let Some(schema) = schema.get("items") {
                for (index, item) in items.iter().enumerate() {
                    self.value(file, schema, item, &format!("{at}[{index}]"))?;
                }
            }
        }
        let Some(object) = value.as_object() else { return Ok(()) };
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if !object.contains_key(name.as_str().unwrap()) {
                return Err(format!("{at}: {name} is missing"));
            }
        }
        for (name, member) in object {
            let known = schema.get("properties").and_then(|all| all.get(name));
            let any = schema.get("patternProperties").and_then(|all| all.get(".{1,}")).filter(|_| !name.is_empty());
            let rest = schema.get("additionalProperties").filter(|rest| rest.is_object());
            if let Some(schema) = known.or(any).or(rest) {
                self.value(file, schema, member, &format!("{at}.{name}"))?;
            }
        }
        Ok(())
    }
}

/// The few patterns of the schemas, by hand.
fn matches(pattern: &str, text: &str) -> bool {
    let upper =
        |text: &str, more: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || more.contains(c));
    match pattern {
        "^RLIMIT_[A-Z]+$" => text.strip_prefix("RLIMIT_").is_some_and(|rest| upper(rest, "")),
        "^CAP_[A-Z_]+$" => text.strip_prefix("CAP_").is_some_and(|rest| upper(rest, "_")),
        "^[cbup]$" => matches!(text, "c" | "b" | "u" | "p"),
        "^[1-9][0-9]*[KMG]B$" => {
            let digits = ["KB", "MB", "GB"].iter().find_map(|unit| text.strip_suffix(unit)).unwrap_or_default();
            digits.parse::<u64>().is_ok_and(|number| number > 0)
        }
        other => {
            eprintln!("not checked: {text} against {other}");
            true
        }
    }
}
