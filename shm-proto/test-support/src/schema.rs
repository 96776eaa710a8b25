//! The JSON Schemas in `etc/schemas`, and whether output keeps to them. Understood is as much of draft 2020-12 as they use; a word that
//! is not is a mistake in the schema, so nothing is passed over. A schema may refer to parts of another one by its `$id`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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
    /// All schemas that there are files of.
    all: Vec<Value>,
    seen: BTreeSet<String>,
}

impl Schema {
    /// The schema of the command with this name. It has to describe everything, and to have a version.
    #[track_caller]
    pub fn of(command: &str) -> Self {
        let schema = Self::new(command, read(&dir().join(format!("{command}.json"))));
        assert_eq!(schema.root["$schema"], DIALECT, "{command}");
        let version = schema.id().strip_prefix(&format!("urn:shmd:{command}:")).and_then(|end| end.parse::<u32>().ok());
        assert!(version.is_some(), "{command} has no version: {}", schema.id());
        schema
    }

    /// A schema that is in no file.
    #[track_caller]
    pub fn new(name: &str, root: Value) -> Self {
        let all = fs::read_dir(dir()).unwrap().map(|file| read(&file.unwrap().path())).collect();
        let schema = Schema { name: name.to_owned(), root, all, seen: BTreeSet::new() };
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
        Judge { root: &self.root, all: &self.all }.judge(&self.root, value, "$", "$", &mut self.seen)
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
        Judge { root: &self.root, all: &self.all }.fields(&self.root, "", &mut fields);
        fields
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        faults_of(&self.root, "$", &mut faults);
        faults
    }
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/schemas")
}

#[track_caller]
fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
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
    /// The schema that references without an `$id` mean.
    root: &'s Value,
    all: &'s [Value],
}

impl<'s> Judge<'s> {
    /// What a reference leads to, and its judge.
    fn resolve(self, schema: &'s Value) -> Result<(Self, &'s Value), String> {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { return Ok((self, schema)) };
        let (id, pointer) = reference.split_once('#').unwrap_or((reference, ""));
        let root = if id.is_empty() { Some(self.root) } else { self.all.iter().find(|other| other["$id"] == id) };
        let target = root.and_then(|root| Some((root, root.pointer(pointer)?)));
        let (root, target) = target.ok_or_else(|| format!("{reference} leads nowhere"))?;
        Judge { root, ..self }.resolve(target)
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
        let (judge, schema) = self.resolve(schema)?;
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
                    judge.judge(property, member, &place, &path, seen)?;
                }
                (None, Some(Value::Bool(false))) => return Err(format!("{place} is not in the schema")),
                (None, Some(any)) if any.is_object() => judge.judge(any, member, &place, &path, seen)?,
                (None, _) => {}
            }
        }
        if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
            for (index, value) in values.iter().enumerate() {
                judge.judge(items, value, &format!("{place}[{index}]"), &format!("{path}[]"), seen)?;
            }
        }
        if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
            let fits = choices.iter().filter(|choice| judge.judge(choice, value, place, path, seen).is_ok()).count();
            if fits != 1 {
                return no(format!("{value} fits {fits} of the choices"));
            }
        }
        Ok(())
    }

    fn fields(self, schema: &'s Value, path: &str, fields: &mut Vec<String>) {
        let (judge, schema) = self.resolve(schema).unwrap_or_else(|e| panic!("{e}"));
        for (name, property) in object(schema, "properties") {
            let dot = if path.is_empty() { "" } else { "." };
            let sometimes = if requires(schema, name) { "" } else { "?" };
            let path = format!("{path}{dot}{name}");
            fields.push(format!("{path}{sometimes}  {}", judge.kind(property)));
            judge.fields(property, &path, fields);
        }
        if let Some(items) = schema.get("items") {
            judge.fields(items, &format!("{path}[]"), fields);
        }
        for choice in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
            judge.fields(choice, path, fields);
        }
    }

    /// The words for a value's type.
    fn kind(self, schema: &'s Value) -> String {
        let (judge, schema) = self.resolve(schema).unwrap_or_else(|e| panic!("{e}"));
        if let Some(kind) = schema.get("type") {
            return kinds(kind).collect::<Vec<_>>().join("|");
        }
        let choices = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
        choices.map(|choice| judge.kind(choice)).collect::<Vec<_>>().join("|")
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
