//! `org.systemd.property.NAME` annotations: properties of the scope that no field of the configuration speaks of, as runc
//! and crun have them. The value is a GVariant in text form (GLib: "GVariant Text Format"), of which this is the part that
//! properties of units need: booleans, numbers, strings, arrays and tuples, with a type's name where it is not the default.

use std::collections::{BTreeMap, HashMap};

use zvariant::{Array, StructureBuilder, Value};

use crate::error::{Error, Result};

const PREFIX: &str = "org.systemd.property.";
/// What the runtime answers for, in the names of `org.freedesktop.systemd1(5)`.
const OWN: [&str; 6] = ["Slice", "PIDs", "Delegate", "Description", "CollectMode", "DefaultDependencies"];
/// An array in an array is as deep as any property is.
const DEEPEST: u32 = 4;

/// The annotations that are properties, by name and text. All are understood.
///
/// # Errors
/// [`Error::Config`] for a name or a value that is none.
pub(super) fn properties(annotations: Option<&HashMap<String, String>>) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (key, text) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let fault = |reason: String| Error::config(format!("$.annotations.{key}"), reason);
        if name.is_empty() || !name.bytes().all(|it| it.is_ascii_alphanumeric()) {
            return Err(fault("does not end in the name of a property".to_owned()));
        }
        if OWN.contains(&name) {
            return Err(fault(format!("`{name}` belongs to the runtime")));
        }
        property(name, text).map_err(fault)?;
        found.insert(name.to_owned(), text.clone());
    }
    Ok(found)
}

/// A property as systemd takes it: `TimeoutStopSec` in seconds is `TimeoutStopUSec` in microseconds, as in a unit's file.
pub(super) fn property(name: &str, text: &str) -> Result<(String, Value<'static>), String> {
    let value = value(text)?;
    let Some(stem) = name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) else {
        return Ok((name.to_owned(), value));
    };
    let seconds = match value {
        Value::U64(seconds) => seconds as f64,
        Value::U32(seconds) => f64::from(seconds),
        Value::I32(seconds) => f64::from(seconds),
        Value::I64(seconds) => seconds as f64,
        Value::F64(seconds) => seconds,
        _ => return Err(format!("`{text}` is no number of seconds")),
    };
    let micros = seconds * 1e6;
    // 2^63 µs are 292,000 years; a float cannot hold the last of an u64's values.
    if !(0.0..9.2e18).contains(&micros) {
        return Err(format!("`{text}` seconds are out of range"));
    }
    Ok((format!("{stem}USec"), Value::U64(micros.round() as u64)))
}

fn value(text: &str) -> Result<Value<'static>, String> {
    let mut parser = Parser { rest: text.trim(), deep: 0 };
    let value = parser.value()?;
    match parser.rest.trim() {
        "" => Ok(value),
        rest => Err(format!("`{rest}` follows the value")),
    }
}

struct Parser<'a> {
    rest: &'a str,
    deep: u32,
}

impl Parser<'_> {
    fn value(&mut self) -> Result<Value<'static>, String> {
        self.rest = self.rest.trim_start();
        match self.rest.chars().next() {
            Some('\'' | '"') => self.string().map(Value::from),
            Some('[') => self.array(),
            Some('(') => self.tuple(),
            Some('a'..='z') => self.word(),
            Some('-' | '+' | '.' | '0'..='9') => self.number("int32"),
            _ => Err(format!("`{}` is no value: a string is quoted, as in 'text'", self.rest)),
        }
    }

    fn word(&mut self) -> Result<Value<'static>, String> {
        let word = self.take(|it| it.is_ascii_alphanumeric());
        match word.as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            "boolean" | "string" => self.value(),
            kind => {
                self.rest = self.rest.trim_start();
                self.number(kind)
            }
        }
    }

    fn number(&mut self, kind: &str) -> Result<Value<'static>, String> {
        let text = self.take(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '+' | '.'));
        let wrong = |_| format!("`{text}` is no {kind}");
        Ok(match kind {
            "byte" => Value::U8(text.parse().map_err(wrong)?),
            "int16" => Value::I16(text.parse().map_err(wrong)?),
            "uint16" => Value::U16(text.parse().map_err(wrong)?),
            "int32" if text.contains('.') => Value::F64(text.parse().map_err(|_| format!("`{text}` is no number"))?),
            "int32" => Value::I32(text.parse().map_err(wrong)?),
            "uint32" => Value::U32(text.parse().map_err(wrong)?),
            "int64" => Value::I64(text.parse().map_err(wrong)?),
            "uint64" => Value::U64(text.parse().map_err(wrong)?),
            "double" => Value::F64(text.parse().map_err(|_| format!("`{text}` is no double"))?),
            _ => return Err(format!("`{kind}` is no type that a property has")),
        })
    }

    fn string(&mut self) -> Result<String, String> {
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map(|(_, it)| it);
        let mut text = String::new();
        while let Some((at, it)) = chars.next() {
            match it {
                _ if Some(it) == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => match chars.next().map(|(_, it)| it) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(it @ ('\\' | '\'' | '"')) => text.push(it),
                    _ => return Err("a string has an escape that is none of \\\\ \\' \\\" \\n \\t".to_owned()),
                },
                '\0' => return Err("a string has a NUL".to_owned()),
                it => text.push(it),
            }
        }
        Err("a string has no end".to_owned())
    }

    fn array(&mut self) -> Result<Value<'static>, String> {
        let elements = self.list(']')?;
        let Some(first) = elements.first() else {
            return Err("an empty array has no type: leave the annotation out".to_owned());
        };
        let mut array = Array::new(first.value_signature());
        for element in elements {
            array.append(element).map_err(|_| "the elements of an array are of one type".to_owned())?;
        }
        Ok(Value::Array(array))
    }

    fn tuple(&mut self) -> Result<Value<'static>, String> {
        let fields = self.list(')')?.into_iter().fold(StructureBuilder::new(), StructureBuilder::append_field);
        fields.build().map(Value::Structure).map_err(|_| "a tuple is empty".to_owned())
    }

    fn list(&mut self, end: char) -> Result<Vec<Value<'static>>, String> {
        self.deep += 1;
        if self.deep > DEEPEST {
            return Err(format!("is deeper than {DEEPEST} arrays"));
        }
        self.rest = &self.rest[1..];
        let mut list = Vec::new();
        loop {
            self.rest = self.rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix(end) {
                self.rest = rest;
                self.deep -= 1;
                return Ok(list);
            }
            list.push(self.value()?);
            self.rest = self.rest.trim_start();
            match self.rest.strip_prefix(',') {
                Some(rest) => self.rest = rest,
                None if self.rest.starts_with(end) => {}
                None => return Err(format!("`{}` is neither `,` nor `{end}`", self.rest)),
            }
        }
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|it| !belongs(it)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, text: &str) -> Result<BTreeMap<String, String>> {
        properties(Some(&HashMap::from([(format!("{PREFIX}{name}"), text.to_owned())])))
    }

    #[test]
    fn values_have_the_types_that_they_name() {
        assert_eq!(value("true"), Ok(Value::Bool(true)));
        assert_eq!(value(" 7 "), Ok(Value::I32(7)));
        assert_eq!(value("uint64 18446744073709551615"), Ok(Value::U64(u64::MAX)));
        assert_eq!(value("-1.5"), Ok(Value::F64(-1.5)));
        assert_eq!(value(r#""a \"b\" \n""#), Ok(Value::from("a \"b\" \n")));
        assert_eq!(value("['a', 'b']"), Ok(Value::from(vec!["a", "b"])));
        assert_eq!(value("[('/dev/null', 'rw')]"), Ok(Value::from(vec![("/dev/null", "rw")])));
    }

    #[test]
    fn seconds_are_microseconds_of_another_name() {
        assert_eq!(property("TimeoutStopSec", "1.5"), Ok(("TimeoutStopUSec".to_owned(), Value::U64(1_500_000))));
        assert_eq!(property("TimeoutStopUSec", "uint64 7"), Ok(("TimeoutStopUSec".to_owned(), Value::U64(7))));
        assert!(property("TimeoutStopSec", "-1").is_err() && property("TimeoutStopSec", "'x'").is_err());
    }

    #[test]
    fn what_is_no_property_is_refused_with_its_annotation() {
        for (name, text) in [
            ("X", ""),
            ("X", "word"),
            ("X", "'open"),
            ("X", "uint16 70000"),
            ("X", "[1, 'a']"),
            ("X", "[]"),
            ("X", "()"),
            ("X", "1 2"),
            ("X", "[[[[[1]]]]]"),
            ("a-b", "1"),
            ("", "1"),
            ("Slice", "'system.slice'"),
            ("PIDs", "[uint32 1]"),
        ] {
            let error = of(name, text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("$.annotations.{PREFIX}{name}: ")), "{name}={text}: {error}");
        }
        assert_eq!(of("MemoryHigh", "uint64 5").unwrap()["MemoryHigh"], "uint64 5");
    }
}
