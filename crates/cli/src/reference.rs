//! The page of all commands and their flags, made from the command line's own definition; the test holds the page against
//! it, and `cargo xtask docs` writes it.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Arg, Command, CommandFactory};

use crate::args::Cli;

const PAGE: &str = "docs/reference-cli.md";
const HEAD: &str = "# Reference: the command line

Written by `cargo xtask docs` from the definition of the command line: what `--help` says of every command and flag. What each
is for, and how they go together, is in [the command line](cli.md).

";

fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut page = HEAD.to_owned();
    flags(&mut page, "For every command", &root, |arg| arg.is_global_set());
    for command in root.get_subcommands() {
        describe(&mut page, "volley", command);
    }
    page
}

fn describe(page: &mut String, above: &str, command: &Command) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let name = format!("{above} {}", command.get_name());
    flags(page, &format!("`{name}`"), command, |arg| !arg.is_global_set());
    for inner in command.get_subcommands() {
        describe(page, &name, inner);
    }
}

fn flags(page: &mut String, title: &str, command: &Command, wanted: impl Fn(&Arg) -> bool) {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let of_all = title.starts_with("For");
    let about = if of_all { String::new() } else { format!("{}\n\n", plain(&about)) };
    write!(page, "## {title}\n\n{about}").expect("text takes all that is written");
    let shown = |arg: &&Arg| wanted(arg) && !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version");
    let rows: Vec<String> = command.get_arguments().filter(shown).map(row).collect();
    if !rows.is_empty() {
        let rows = rows.concat();
        write!(page, "| argument | default | meaning |\n| --- | --- | --- |\n{rows}\n").expect("as above");
    }
}

fn row(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default().iter().map(|name| name.to_string()).collect::<Vec<_>>();
    let takes = arg.get_action().takes_values();
    let value = if takes { values.join(" ") } else { String::new() };
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let name = match arg.get_long() {
        Some(long) => format!("{short}--{long} {value}"),
        None if short.is_empty() => value,
        None => format!("{}{value}", short.replace(", ", " ")),
    };
    let default: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let default = if takes && !default.is_empty() { format!("`{}`", default.join(" ")) } else { String::new() };
    let mut meaning = arg.get_help().map(|help| plain(&help.to_string())).unwrap_or_default();
    let choices: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| value.get_name().to_owned())
        .collect();
    if takes && !choices.is_empty() {
        write!(meaning, " ({})", choices.join(", ")).expect("as above");
    }
    if let Some(variable) = arg.get_env() {
        write!(meaning, "; `{}` in the environment", variable.to_string_lossy()).expect("as above");
    }
    format!("| `{}` | {} | {} |\n", name.trim().replace('|', "\\|"), default.replace('|', "\\|"), meaning)
}

/// For a cell of a table: in one line.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|").replace('<', "&lt;")
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test's own arguments come from its environment")]
fn the_reference_of_the_command_line_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PAGE);
    if std::env::var_os("VOLLEY_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).expect("the docs can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "{PAGE} is not up to date: run `cargo xtask docs`");
}
