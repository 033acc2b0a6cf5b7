//! docs/openapi.json and docs/asyncapi.json by themselves: their references lead somewhere, their schemas are JSON Schema,
//! and their objects have the members of the OpenAPI 3.1 and AsyncAPI 3.0 specifications and no others. `tests/server`
//! compares them with what the server answers and sends.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{read, rows, section, spans};

const OPENAPI: &str = "openapi.json";
const ASYNCAPI: &str = "asyncapi.json";

/// The keywords of JSON Schema that the documents use. They mean the same in draft 2020-12, which OpenAPI 3.1 has, and in
/// draft 7, which AsyncAPI 3.0 has.
const KEYWORDS: &[&str] = &[
    "$ref",
    "additionalProperties",
    "const",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minItems",
    "minLength",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "type",
    "uniqueItems",
];

/// The objects of the specifications: where they are (`*` is any member), the members that they must have, and those that
/// they may have. An object with a `$ref` has no other member.
const OBJECTS: &[(&str, &str, &str, &str)] = &[
    (OPENAPI, "", "openapi info paths", "servers tags components"),
    (OPENAPI, "/info", "title version", "summary description license"),
    (OPENAPI, "/tags/*", "name", "description"),
    (OPENAPI, "/servers/*", "url", "description"),
    (OPENAPI, "/paths/*", "", "get post"),
    (OPENAPI, "/paths/*/*", "operationId tags summary responses", "description externalDocs security parameters"),
    (OPENAPI, "/paths/*/*/parameters/*", "name in description schema", "required explode example"),
    (OPENAPI, "/paths/*/*/responses/*", "description", "headers content"),
    (OPENAPI, "/paths/*/*/responses/*/content/*", "schema", ""),
    (OPENAPI, "/components", "", "securitySchemes parameters headers responses schemas"),
    (OPENAPI, "/components/securitySchemes/*", "type", "scheme in name description"),
    (OPENAPI, "/components/parameters/*", "name in description schema", "required explode example"),
    (OPENAPI, "/components/headers/*", "description schema", "required"),
    (OPENAPI, "/components/responses/*", "description", "headers content"),
    (OPENAPI, "/components/responses/*/content/*", "schema", ""),
    (ASYNCAPI, "", "asyncapi info", "defaultContentType servers channels operations components"),
    (ASYNCAPI, "/info", "title version", "description license"),
    (ASYNCAPI, "/servers/*", "host protocol", "description variables security"),
    (ASYNCAPI, "/channels/*", "address title messages", "description servers bindings"),
    (ASYNCAPI, "/operations/*", "action channel summary messages", "reply"),
    (ASYNCAPI, "/operations/*/reply", "channel messages", ""),
    (ASYNCAPI, "/components", "", "securitySchemes messages schemas"),
    (ASYNCAPI, "/components/securitySchemes/*", "type", "scheme description"),
    (ASYNCAPI, "/components/messages/*", "payload", "summary description contentType examples"),
];

/// Where schemas are.
const SCHEMAS: &[(&str, &str)] = &[
    (OPENAPI, "/components/schemas/*"),
    (OPENAPI, "/components/parameters/*/schema"),
    (OPENAPI, "/components/headers/*/schema"),
    (OPENAPI, "/components/responses/*/content/*/schema"),
    (OPENAPI, "/paths/*/*/parameters/*/schema"),
    (OPENAPI, "/paths/*/*/responses/*/content/*/schema"),
    (ASYNCAPI, "/components/schemas/*"),
    (ASYNCAPI, "/components/messages/*/payload"),
    (ASYNCAPI, "/channels/*/bindings/ws/query"),
];

struct Documents {
    openapi: Value,
    asyncapi: Value,
}

impl Documents {
    fn read() -> Self {
        let parse = |name| serde_json::from_str(&read(format!("docs/{name}"))).expect("it is JSON");
        Self { openapi: parse(OPENAPI), asyncapi: parse(ASYNCAPI) }
    }

    fn named(&self, name: &str) -> &Value {
        if name == OPENAPI { &self.openapi } else { &self.asyncapi }
    }

    fn both(&self) -> [(&'static str, &Value); 2] {
        [(OPENAPI, &self.openapi), (ASYNCAPI, &self.asyncapi)]
    }

    /// What a reference in a document leads to, with its absolute form.
    fn target(&self, from: &str, reference: &str) -> Option<(String, &Value)> {
        let (file, pointer) = reference.split_once('#')?;
        let file = if file.is_empty() { from } else { file };
        let is_known = [OPENAPI, ASYNCAPI].contains(&file);
        let target = self.named(file).pointer(pointer).filter(|_| is_known)?;
        Some((format!("{file}#{pointer}"), target))
    }
}

/// The values at a path whose `*` is any member, with their pointers.
fn at<'a>(value: &'a Value, path: &str) -> Vec<(String, &'a Value)> {
    let mut found = vec![(String::new(), value)];
    for step in path.split('/').skip(1) {
        let next = |(pointer, value): (String, &'a Value)| -> Vec<(String, &'a Value)> {
            let members: Vec<(String, &Value)> = match value {
                Value::Object(members) => members.iter().map(|(name, member)| (name.clone(), member)).collect(),
                Value::Array(list) => list.iter().enumerate().map(|(nth, one)| (nth.to_string(), one)).collect(),
                _ => Vec::new(),
            };
            let wanted = members.into_iter().filter(|(name, _)| step == "*" || step == name);
            wanted.map(|(name, member)| (format!("{pointer}/{}", name.replace('/', "~1")), member)).collect()
        };
        found = found.into_iter().flat_map(next).collect();
    }
    found
}

/// Each object of a value, with its pointer.
fn objects<'a>(value: &'a Value, pointer: &str, out: &mut Vec<(String, &'a Map<String, Value>)>) {
    match value {
        Value::Object(members) => {
            out.push((pointer.to_owned(), members));
            members.iter().for_each(|(name, member)| objects(member, &format!("{pointer}/{name}"), out));
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(nth, one)| objects(one, &format!("{pointer}/{nth}"), out));
        }
        _ => {}
    }
}

/// References that lead nowhere or have members beside them, and components that nothing refers to.
fn reference_faults(documents: &Documents) -> Vec<String> {
    let (mut faults, mut referred) = (Vec::new(), BTreeSet::new());
    for (name, document) in documents.both() {
        let mut all = Vec::new();
        objects(document, "", &mut all);
        for (pointer, object) in all {
            let Some(reference) = object.get("$ref") else { continue };
            if object.len() > 1 {
                faults.push(format!("{name}#{pointer}: members beside $ref"));
            }
            match reference.as_str().and_then(|text| documents.target(name, text)) {
                Some((target, _)) => drop(referred.insert(target)),
                None => faults.push(format!("{name}#{pointer}: {reference} leads nowhere")),
            }
        }
    }
    for (name, document) in documents.both() {
        // Security schemes are named and not referred to in OpenAPI.
        let components = at(document, "/components/*/*").into_iter().map(|(pointer, _)| format!("{name}#{pointer}"));
        let unused =
            components.filter(|one| !referred.contains(one) && !one.starts_with("openapi.json#/components/sec"));
        faults.extend(unused.map(|one| format!("{one}: unused")));
    }
    faults
}

/// Objects that have not the members of the specification.
fn object_faults(documents: &Documents) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, path, required, optional) in OBJECTS {
        let found = at(documents.named(name), path);
        if found.is_empty() {
            faults.push(format!("{name}#{path}: nothing is there"));
        }
        for (pointer, value) in found {
            let Some(members) = value.as_object() else {
                faults.push(format!("{name}#{pointer}: no object"));
                continue;
            };
            if members.contains_key("$ref") {
                continue;
            }
            let required: Vec<_> = required.split_whitespace().collect();
            let missing = required.iter().filter(|member| !members.contains_key(**member));
            faults.extend(missing.map(|member| format!("{name}#{pointer}: no {member}")));
            let is_known = |member: &str| required.contains(&member) || optional.split(' ').any(|one| one == member);
            let unknown = members.keys().filter(|member| !is_known(member));
            faults.extend(unknown.map(|member| format!("{name}#{pointer}: unknown {member}")));
        }
    }
    faults
}

/// Schemas that are no JSON Schema, or have a keyword that is none.
fn schema_faults(documents: &Documents) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, path) in SCHEMAS {
        for (pointer, schema) in at(documents.named(name), path) {
            if !jsonschema::draft202012::meta::is_valid(schema) || !jsonschema::draft7::meta::is_valid(schema) {
                faults.push(format!("{name}#{pointer}: no JSON Schema"));
            }
            unknown_keywords(schema, &format!("{name}#{pointer}"), &mut faults);
        }
    }
    faults
}

fn unknown_keywords(schema: &Value, pointer: &str, faults: &mut Vec<String>) {
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        if !KEYWORDS.contains(&keyword.as_str()) {
            faults.push(format!("{pointer}: unknown {keyword}"));
        }
        let parts = match (keyword.as_str(), value) {
            ("properties", Value::Object(members)) => members.values().collect(),
            ("oneOf", Value::Array(list)) => list.iter().collect(),
            ("items" | "additionalProperties", value) => vec![value],
            _ => Vec::new(),
        };
        parts.into_iter().for_each(|part| unknown_keywords(part, &format!("{pointer}/{keyword}"), faults));
        let listed = schema["properties"].as_object();
        for required in value.as_array().into_iter().flatten().filter(|_| keyword == "required") {
            if listed.is_some_and(|listed| !listed.contains_key(required.as_str().unwrap_or_default())) {
                faults.push(format!("{pointer}: required {required} is no property"));
            }
        }
    }
}

/// Tags, security schemes and parameters of the path that are used and not declared, and ids that are used twice.
fn operation_faults(documents: &Documents) -> Vec<String> {
    let (mut faults, mut ids, openapi) = (Vec::new(), BTreeSet::new(), &documents.openapi);
    let tags: Vec<_> = at(openapi, "/tags/*/name").into_iter().map(|(_, name)| name).collect();
    for (pointer, operation) in at(openapi, "/paths/*/*") {
        if !ids.insert(operation["operationId"].to_string()) {
            faults.push(format!("{pointer}: repeated operationId"));
        }
        let unknown = at(operation, "/tags/*").into_iter().filter(|(_, tag)| !tags.contains(tag));
        faults.extend(unknown.map(|(_, tag)| format!("{pointer}: unknown tag {tag}")));
        let given = at(operation, "/security/*").into_iter();
        let schemes = given.filter_map(|(_, one)| one.as_object()).flat_map(Map::keys);
        let unknown = schemes.filter(|name| openapi["components"]["securitySchemes"].get(name).is_none());
        faults.extend(unknown.map(|name| format!("{pointer}: unknown scheme {name}")));
        let resolved = at(operation, "/parameters/*").into_iter().filter_map(|(_, one)| match one["$ref"].as_str() {
            Some(reference) => Some(documents.target(OPENAPI, reference)?.1),
            None => Some(one),
        });
        let of_path = resolved.filter(|one| one["in"] == "path" && one["required"] == true).count();
        if of_path != pointer.matches('{').count() {
            faults.push(format!("{pointer}: {of_path} parameters of the path"));
        }
    }
    faults
}

/// Messages that an operation takes from another channel, and those of channels that are in no operation.
fn message_faults(documents: &Documents) -> Vec<String> {
    let (mut faults, mut used, asyncapi) = (Vec::new(), BTreeSet::new(), &documents.asyncapi);
    for (pointer, operation) in at(asyncapi, "/operations/*") {
        if operation["action"] != "send" && operation["action"] != "receive" {
            faults.push(format!("{pointer}: unknown action"));
        }
        for part in [operation, &operation["reply"]] {
            let channel = part["channel"]["$ref"].as_str().unwrap_or_default();
            for (_, message) in at(part, "/messages/*/$ref") {
                let message = message.as_str().unwrap_or_default();
                if !message.starts_with(&format!("{channel}/messages/")) {
                    faults.push(format!("{pointer}: {message} is of another channel"));
                }
                used.insert(message);
            }
        }
    }
    let messages = at(asyncapi, "/channels/*/messages/*").into_iter().map(|(pointer, _)| format!("#{pointer}"));
    faults.extend(messages.filter(|one| !used.contains(one.as_str())).map(|one| format!("{one}: in no operation")));
    faults
}

fn faults(documents: &Documents) -> Vec<String> {
    [reference_faults, object_faults, schema_faults, operation_faults, message_faults]
        .iter()
        .flat_map(|of| of(documents))
        .collect()
}

#[test]
fn the_descriptions_are_whole_and_hold_to_their_specifications() {
    let documents = Documents::read();
    assert_eq!(faults(&documents), [""; 0]);
    assert_eq!((&documents.openapi["openapi"], &documents.asyncapi["asyncapi"]), (&json!("3.1.1"), &json!("3.0.0")));
}

#[test]
fn a_fault_of_a_description_is_found() {
    let quote = "/components/schemas/Quote";
    for (name, pointer, member, value, expected) in [
        (OPENAPI, quote, "requierd", json!([]), "unknown requierd"),
        (OPENAPI, quote, "type", json!("objekt"), "no JSON Schema"),
        (OPENAPI, quote, "required", json!(["nothing"]), "required \"nothing\" is no property"),
        (OPENAPI, "/components/schemas", "Unused", json!({"type": "string"}), "unused"),
        (OPENAPI, "/components/schemas/Decimals", "items", json!({"$ref": "#/nowhere"}), "leads nowhere"),
        (OPENAPI, "/paths/~1/get", "operationId", json!("getBars"), "repeated operationId"),
        (OPENAPI, "/paths/~1/get", "tags", json!(["other"]), "unknown tag"),
        (OPENAPI, "/paths/~1/get", "security", json!([{"other": []}]), "unknown scheme other"),
        (OPENAPI, "/paths/~1/get", "responces", json!({}), "unknown responces"),
        (OPENAPI, "/components/parameters/symbol", "in", json!("query"), "0 parameters of the path"),
        (OPENAPI, "/paths/~1/get/responses", "200", json!({}), "no description"),
        (ASYNCAPI, "/operations/ping", "action", json!("get"), "unknown action"),
        (ASYNCAPI, "/operations/ping", "channel", json!({"$ref": "#/channels/sse"}), "is of another channel"),
        (ASYNCAPI, "/operations/ping", "messages", json!([]), "/channels/stream/messages/ping: in no operation"),
        (ASYNCAPI, "/components/schemas/Ping", "oneof", json!([]), "unknown oneof"),
        (ASYNCAPI, "/components/schemas/Raw", "properties", json!({"x": {"$ref": "other.json#/x"}}), "leads nowhere"),
    ] {
        let mut documents = Documents::read();
        let document = if name == OPENAPI { &mut documents.openapi } else { &mut documents.asyncapi };
        document.pointer_mut(pointer).expect(pointer)[member] = value;
        let found = faults(&documents);
        assert!(found.iter().any(|fault| fault.contains(expected)), "{pointer} {member}: {found:#?}");
    }
}

#[test]
fn the_codes_of_refusals_are_those_of_the_page() {
    let page = read("docs/http-api.md");
    let listed: BTreeSet<_> =
        rows(section(&page, "## Errors")).iter().flat_map(|row| spans(&row[1])).map(str::to_owned).collect();
    let documents = Documents::read();
    let described = at(&documents.openapi, "/components/schemas/Refusal/properties/error/properties/code/enum/*");
    let described: BTreeSet<_> = described.iter().map(|(_, code)| code.as_str().expect("a word").to_owned()).collect();
    assert_eq!(described, listed);
}

#[test]
fn the_examples_of_messages_are_valid() {
    let documents = Documents::read();
    let text = read("docs/asyncapi.json").replace("openapi.json#", "#");
    let mut schemas = documents.openapi["components"]["schemas"].clone();
    let own: Value = serde_json::from_str(&text).expect("it is JSON");
    for (name, schema) in own["components"]["schemas"].as_object().expect("schemas") {
        schemas[name] = schema.clone();
    }
    let examples = at(&documents.asyncapi, "/components/messages/*/examples/*/payload");
    assert!(examples.len() >= 6, "{examples:?}");
    for (pointer, example) in examples {
        let name = pointer.split('/').nth(3).expect("a message");
        let schema =
            json!({"components": {"schemas": schemas}, "allOf": [own["components"]["messages"][name]["payload"]]});
        jsonschema::validate(&schema, example).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}
