//! What commands print to stdout: a table for people, JSON with a version for programs, or
//! bare ids for shells. A reader that goes away is no error.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

/// The version of the JSON that commands print; it grows when a field changes its meaning.
pub const JSON_VERSION: u32 = 1;

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document with `"version": 1`, or one per line for streams.
    Json,
    /// For shells: ids only, one per line.
    Quiet,
}

/// Writes text to stdout at once.
pub fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Writes a line to stdout.
pub fn write_line(text: &str) -> io::Result<()> {
    write(&format!("{text}\n"))
}

/// Writes an object's own fields as one JSON document, with the version in front.
pub fn write_json_object(value: impl Serialize) -> io::Result<()> {
    write_line(&serde_json::to_string_pretty(&versioned(value)?)?)
}

fn versioned(value: impl Serialize) -> io::Result<Value> {
    let mut document = serde_json::Map::new();
    document.insert("version".to_owned(), JSON_VERSION.into());
    match serde_json::to_value(value)? {
        Value::Object(fields) => document.extend(fields.into_iter().filter(|(name, _)| name != "version")),
        other => drop(document.insert("value".to_owned(), other)),
    }
    Ok(Value::Object(document))
}

/// Writes one line of a stream of JSON documents, with the version in front.
pub fn write_json_line(value: impl Serialize) -> io::Result<()> {
    write_line(&versioned(value)?.to_string())
}

/// A field of an answer as text; nothing for null.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The items of a list of an answer.
pub fn rows<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

/// Writes names and values, one a line; those without a value are left out.
pub fn write_fields(fields: impl IntoIterator<Item = (&'static str, String)>) -> io::Result<()> {
    let line = |(name, value): (&str, String)| format!("{:13} {}", format!("{name}:"), printable(&value));
    write_lines(fields.into_iter().filter(|(_, value)| !value.is_empty()).map(line))
}

/// Writes lines for shells.
pub fn write_lines(lines: impl IntoIterator<Item = String>) -> io::Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    write(&text)
}

/// Writes a table with a header; only the header when there are no rows.
pub fn write_table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    // Never wrapped: a row is a line, so that `grep` and `awk` work on it.
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|h| h.to_uppercase()));
    for row in rows {
        table.add_row(row.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { printable(&cell) }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    write_line(&table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n"))
}

/// What a user typed as one segment of a URL's path: all but letters, digits, `-`, `_`, `.` is escaped.
pub fn in_path(text: &str) -> String {
    let mut path = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => path.push(char::from(byte)),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

/// A text of a client's without control characters, so that it cannot drive the terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_carry_the_version_once() {
        let value = versioned(serde_json::json!({"version": 9, "ok": true})).expect("an object");
        assert_eq!(value, serde_json::json!({"version": 1, "ok": true}));
    }

    #[test]
    fn what_is_typed_stays_one_segment() {
        assert_eq!(in_path("a-1_b.c"), "a-1_b.c");
        assert_eq!(in_path("a/b?c d"), "a%2Fb%3Fc%20d");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a [2Jb ");
    }
}
