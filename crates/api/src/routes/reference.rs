//! The page of all routes, made from the OpenAPI document that the server shows; the test holds the page against it, and
//! `cargo xtask docs` writes it.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::{described, documented};

const PAGE: &str = "docs/reference-api.md";
const HEAD: &str = "# Reference: the HTTP API

Written by `cargo xtask docs` from the OpenAPI document that a server shows at `/v1/openapi.json`, which also has every field of
every body. How tokens, errors, repeats and pages work is in [the HTTP API](api.md).

";
const METHODS: [&str; 4] = ["get", "post", "put", "delete"];

fn page() -> String {
    let document = described(documented().split_for_parts().1);
    let document = serde_json::to_value(document).expect("a document is JSON");
    let mut page = HEAD.to_owned();
    let paths = document["paths"].as_object().expect("paths");
    for (path, item) in paths {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                page += &section(path, method, operation);
            }
        }
    }
    page
}

fn section(path: &str, method: &str, operation: &Value) -> String {
    let words = |value: &Value| value.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let mut section = format!("## `{} {path}`\n\n", method.to_uppercase());
    let said = format!("{} {}", words(&operation["summary"]), words(&operation["description"]));
    write!(section, "{}\n\n", said.trim().replace('<', "&lt;")).expect("text takes all that is written");
    let cell = |text: String| text.replace('|', "\\|").replace('<', "&lt;");
    let mut rows = String::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (name, place) = (words(&parameter["name"]), words(&parameter["in"]));
        let needed = if parameter["required"] == true { ", required" } else { "" };
        writeln!(rows, "| `{name}` | {place}{needed} | {} |", cell(words(&parameter["description"])))
            .expect("as above");
    }
    for kind in operation["requestBody"]["content"].as_object().into_iter().flat_map(|content| content.keys()) {
        writeln!(rows, "| body | `{kind}` | {} |", cell(words(&operation["requestBody"]["description"])))
            .expect("as above");
    }
    for (code, answer) in operation["responses"].as_object().into_iter().flatten() {
        writeln!(rows, "| {code} | answer | {} |", cell(words(&answer["description"]))).expect("as above");
    }
    write!(section, "| what | where | meaning |\n| --- | --- | --- |\n{rows}\n").expect("as above");
    section
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's own arguments come from its environment")]
fn the_reference_of_the_api_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PAGE);
    if std::env::var_os("VOLLEY_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).expect("the docs can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "{PAGE} is not up to date: run `cargo xtask docs`");
}
