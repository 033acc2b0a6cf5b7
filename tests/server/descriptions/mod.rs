//! The descriptions of the API that the server serves, docs/openapi.json and docs/asyncapi.json, against what it answers
//! and sends. `tests/source_rules` checks the documents by themselves.

mod requests;
mod schemas;
mod streams;
