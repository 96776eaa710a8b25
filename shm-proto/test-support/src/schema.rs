//! The JSON Schemas in `etc/schemas`, and whether output keeps to them. Understood is as much of draft 2020-12 as they use; a word that
//! is not is a mistake in the schema, so nothing is passed over.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// Words about a schema, which decide nothing.
const NOTES: [&str; 6] = ["$schema", "$id", "$defs", "title", "description", "examples"];
/// Words that are checked.
const RULES: [&str; 10] =
    ["$ref", "type", "properties", "required", "additionalProperties", "items", "enum", "const", "minimum", "oneOf"];
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// The schema of a command's output, and which of its properties were seen.
#[derive(Clone, Debug)]
pub struct Schema {
    name: String,
    root: Value,
    seen: BTreeSet<String>,
}

impl Schema {
    /// The schema of the command with this name, which has to be one that says everything.
    #[track_caller]
    pub fn of(command: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/schemas").join(format!("{command}.json"));
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let root: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let schema = Self::new(command, root);
        assert_eq!(schema.root["$schema"], DIALECT, "{command}");
        assert!(schema.id().starts_with(&format!("urn:shmd:{command}:")), "{command} has no version: {}", schema.id());
        schema
    }

    /// A schema that is in no file.
    #[track_caller]
    pub fn new(name: &str, root: Value) -> Self {
        let schema = Schema { name: name.to_owned(), root, seen: BTreeSet::new() };
        let faults = schema.faults();
        assert!(faults.is_empty(), "the schema {name} is not whole:\n{}", faults.join("\n"));
        schema
    }

    /// Its identifier, which ends in the version.
    pub fn id(&self) -> &str {
        self.root["$id"].as_str().unwrap_or_default()
    }

    /// Output of one line, or of several that have an object each, keeps to it.
    #[track_caller]
    pub fn check_text(&mut self, text: &str) {
        for line in text.lines() {
            let value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            self.check(&value);
        }
    }

    /// The value keeps to it.
    #[track_caller]
    pub fn check(&mut self, value: &Value) {
        if let Err(fault) = self.judge(value) {
            panic!("the output does not keep to etc/schemas/{}.json: {fault}\n{value}", self.name);
        }
    }

    fn judge(&mut self, value: &Value) -> Result<(), String> {
        let (root, mut seen) = (self.root.clone(), std::mem::take(&mut self.seen));
        let judged = Judge { root: &root }.judge(&root, value, "$", "$", &mut seen);
        self.seen = seen;
        judged
    }

    /// Properties that no checked value had, and their other types: what appears only sometimes has to be provoked.
    pub fn unseen(&self) -> Vec<String> {
        let mut unseen = Vec::new();
        for field in self.fields() {
            let (path, kinds) = field.split_once("  ").unwrap();
            let several = kinds.contains('|');
            for kind in kinds.split('|') {
                let path = path.trim_end_matches('?');
                let wanted = if several { format!("{path} {kind}") } else { path.to_owned() };
                unseen.extend((!self.seen.contains(&wanted)).then_some(wanted));
            }
        }
        unseen
    }

    /// Every property with its place and type, such as `[].readers[].latency?.p50_ns  integer`. A question mark: not always there.
    pub fn fields(&self) -> Vec<String> {
        let mut fields = Vec::new();
        Judge { root: &self.root }.fields(&self.root, "", &mut fields);
        fields
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        faults_of(&self.root, "$", &mut faults);
        faults
    }
}

/// What is wrong with the schema itself: unknown words, properties without a description, objects that take anything.
fn faults_of(schema: &Value, place: &str, faults: &mut Vec<String>) {
    let Some(words) = schema.as_object() else {
        faults.push(format!("{place} is no object"));
        return;
    };
    let known = |word: &str| NOTES.contains(&word) || RULES.contains(&word);
    faults.extend(words.keys().filter(|word| !known(word)).map(|word| format!("{place}: {word} is not understood")));
    if words.get("type").is_some_and(|kind| kind == "object") && !words.contains_key("additionalProperties") {
        faults.push(format!("{place}: an object without additionalProperties takes anything"));
    }
    for (name, property) in object(schema, "properties") {
        if property.get("description").is_none() && property.get("$ref").is_none() {
            faults.push(format!("{place}.{name} has no description"));
        }
        faults_of(property, &format!("{place}.{name}"), faults);
    }
    for (name, definition) in object(schema, "$defs") {
        faults_of(definition, &format!("{place}.$defs.{name}"), faults);
    }
    for (place_of, inner) in [("[]", words.get("items")), ("*", words.get("additionalProperties"))] {
        if let Some(inner) = inner.filter(|inner| !inner.is_boolean()) {
            faults_of(inner, &format!("{place}{place_of}"), faults);
        }
    }
    for choice in words.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        faults_of(choice, &format!("{place}|"), faults);
    }
    let has =
        |name: &Value| name.as_str().is_some_and(|name| object(schema, "properties").any(|(known, _)| known == name));
    let required = words.get("required").and_then(Value::as_array).into_iter().flatten();
    if words.contains_key("properties") {
        faults.extend(required.filter(|name| !has(name)).map(|name| format!("{place} requires {name}, and has none")));
    }
}

fn object<'s>(schema: &'s Value, word: &str) -> impl Iterator<Item = (&'s String, &'s Value)> {
    schema.get(word).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

fn requires(schema: &Value, name: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|required| required.iter().any(|it| it == name))
}

#[derive(Clone, Copy)]
struct Judge<'s> {
    root: &'s Value,
}

impl<'s> Judge<'s> {
    /// What a reference leads to.
    fn resolve(self, schema: &'s Value) -> Result<&'s Value, String> {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return Ok(schema) };
        let target = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
        target.ok_or_else(|| format!("{reference} leads nowhere"))
    }

    /// `place` is for people, `path` the property's place as [`fields`](Self::fields) has it.
    fn judge(
        self,
        schema: &'s Value,
        value: &Value,
        place: &str,
        path: &str,
        seen: &mut BTreeSet<String>,
    ) -> Result<(), String> {
        let schema = self.resolve(schema)?;
        let no = |why: String| Err(format!("{place}: {why}"));
        if let Some(kind) = schema.get("type")
            && !kinds(kind).any(|kind| is_of(kind, value))
        {
            return no(format!("{value} is not of type {kind}"));
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array)
            && !words.contains(value)
        {
            return no(format!("{value} is none of the values"));
        }
        if let Some(only) = schema.get("const").filter(|only| *only != value) {
            return no(format!("{value} is not {only}"));
        }
        if let (Some(least), Some(number)) = (schema.get("minimum").and_then(Value::as_f64), value.as_f64())
            && number < least
        {
            return no(format!("{number} is less than {least}"));
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if let (Some(members), Some(name)) = (value.as_object(), name.as_str())
                && !members.contains_key(name)
            {
                return no(format!("{name} is missing"));
            }
        }
        for (name, member) in value.as_object().into_iter().flat_map(Map::iter) {
            let (place, path) = (format!("{place}.{name}"), format!("{path}.{name}"));
            match (schema.pointer("/properties").and_then(|known| known.get(name)), schema.get("additionalProperties"))
            {
                (Some(property), _) => {
                    let shown = path.trim_start_matches('$').trim_start_matches('.');
                    seen.insert(format!("{shown} {}", kind_of(member)));
                    seen.insert(shown.to_owned());
                    self.judge(property, member, &place, &path, seen)?;
                }
                (None, Some(Value::Bool(false))) => return Err(format!("{place} is not in the schema")),
                (None, Some(any)) if any.is_object() => self.judge(any, member, &place, &path, seen)?,
                (None, _) => {}
            }
        }
        if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
            for (index, value) in values.iter().enumerate() {
                self.judge(items, value, &format!("{place}[{index}]"), &format!("{path}[]"), seen)?;
            }
        }
        if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
            let fits = choices.iter().filter(|choice| self.judge(choice, value, place, path, seen).is_ok()).count();
            if fits != 1 {
                return no(format!("{value} fits {fits} of the choices"));
            }
        }
        Ok(())
    }

    fn fields(self, schema: &'s Value, path: &str, fields: &mut Vec<String>) {
        let schema = self.resolve(schema).unwrap_or_else(|e| panic!("{e}"));
        for (name, property) in object(schema, "properties") {
            let property = self.resolve(property).unwrap_or_else(|e| panic!("{e}"));
            let dot = if path.is_empty() { "" } else { "." };
            let sometimes = if requires(schema, name) { "" } else { "?" };
            let path = format!("{path}{dot}{name}");
            fields.push(format!("{path}{sometimes}  {}", self.kind(property)));
            self.fields(property, &path, fields);
        }
        if let Some(items) = schema.get("items") {
            self.fields(items, &format!("{path}[]"), fields);
        }
        for choice in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
            self.fields(choice, path, fields);
        }
    }

    /// The words for a value's type.
    fn kind(self, schema: &'s Value) -> String {
        if let Some(kind) = schema.get("type") {
            return kinds(kind).collect::<Vec<_>>().join("|");
        }
        let choices = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        let kinds = choices.map(|choice| self.kind(self.resolve(choice).unwrap_or_else(|e| panic!("{e}"))));
        kinds.collect::<Vec<_>>().join("|")
    }
}

fn kinds(kind: &Value) -> impl Iterator<Item = &str> {
    let several = kind.as_array().into_iter().flatten().filter_map(Value::as_str);
    kind.as_str().into_iter().chain(several)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    kind == kind_of(value) || (kind == "number" && value.is_number())
}
