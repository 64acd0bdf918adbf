//! What commands print to stdout: a table for people, JSON with a version for programs, or
//! bare ids for shells. A reader that goes away is no error.

use std::io::{self, Write};

use clap::ValueEnum;
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

/// Writes lines for shells.
pub fn write_lines(lines: impl IntoIterator<Item = String>) -> io::Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    write(&text)
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
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a [2Jb ");
    }
}
