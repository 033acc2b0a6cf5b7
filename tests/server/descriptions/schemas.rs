//! The two documents of a server, and validation by their schemas.
//!
//! The documents permit further properties in what the server sends, for later versions. Here they are not permitted, so
//! that what a document does not have is noticed.

use jsonschema::Validator;
use serde_json::{Map, Value, json};
use tickcast_test_support::server::Server;

pub struct Documents {
    pub openapi: Value,
    pub asyncapi: Value,
    /// The schemas of both by name, closed.
    schemas: Map<String, Value>,
}

impl Documents {
    /// Reads the documents that a server serves.
    pub fn of(server: &Server) -> Self {
        let [openapi, asyncapi] = ["/v1/openapi.json", "/v1/asyncapi.json"].map(|path| closed(server.get(path).json()));
        let mut schemas = Map::new();
        for document in [&openapi, &asyncapi] {
            for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
                assert!(schemas.insert(name.clone(), schema.clone()).is_none(), "{name} is in both documents");
            }
        }
        Self { openapi, asyncapi, schemas }
    }

    /// A validator by a schema of either document.
    pub fn validator(&self, schema: &Value) -> Validator {
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": { "schemas": self.schemas },
            "allOf": [schema],
        });
        jsonschema::validator_for(&whole).unwrap_or_else(|error| panic!("{error}: {schema}"))
    }
}

/// What a reference of a document leads to, or the value itself.
pub fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    let Some(reference) = value["$ref"].as_str() else { return value };
    let pointer = reference.strip_prefix('#').expect("a reference within the document");
    document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

/// Asserts that a value is valid.
#[track_caller]
pub fn assert_valid(validator: &Validator, value: &Value, what: &str) {
    let errors: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what}: {value}\n{}", errors.join("\n"));
}

/// The document with no further properties in objects that list theirs, and with the other document's schemas as its own.
fn closed(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let is_open = members.get("type").is_some_and(|kind| kind == "object")
                && members.contains_key("properties")
                && !members.contains_key("additionalProperties");
            let mut members: Map<_, _> = members.into_iter().map(|(name, member)| (name, closed(member))).collect();
            if is_open {
                members.insert("additionalProperties".to_owned(), false.into());
            }
            Value::Object(members)
        }
        Value::Array(list) => list.into_iter().map(closed).collect(),
        Value::String(text) => {
            text.strip_prefix("openapi.json#").map_or(text.clone(), |rest| format!("#{rest}")).into()
        }
        other => other,
    }
}
