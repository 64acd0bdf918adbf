//! `volley config`, `volley completions`, `volley man`: what the program knows of itself.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Subcommand};
use clap_complete::Shell;
use serde_json::{Value, json};

use crate::command_error::CommandError;
use crate::output::{self, Format};
use crate::settings::{self, Places, SECTIONS};

/// Settings.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Read the settings file and say what is wrong with it, with line and column.
    Check,
    /// Every setting of the long-running commands, its value, and where that came from; secrets hidden.
    Show,
    /// Every setting that there is, as a page: key, environment, default, meaning.
    Reference,
}

/// Man pages.
#[derive(Debug, Args)]
pub struct Man {
    /// Folder for one page per command; made when missing (default: the main page on stdout).
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Flags whose values are never shown.
const SECRETS: &[&str] = &["token"];

/// `volley config`. The file was read already: mistakes are told before any command runs.
pub fn config(config: &Config, command: &Command, places: &Places, format: Format) -> Result<(), CommandError> {
    let args: Vec<OsString> = std::env::args_os().collect();
    let file = settings::file(&args)?.map(|file| file.display().to_string());
    match config {
        Config::Check => match (file, format) {
            (file, Format::Json) => output::write_json_object(json!({ "file": file, "ok": true }))?,
            (_, Format::Quiet) => {}
            (Some(file), Format::Table) => output::write_line(&format!("{file} is good"))?,
            (None, Format::Table) => {
                output::write_line("there is no settings file; defaults, VOLLEY_* and flags count")?
            }
        },
        Config::Reference => output::write(&reference(command))?,
        Config::Show => {
            let settings = shown(command, places, file.as_deref().unwrap_or_default())?;
            match format {
                Format::Json => output::write_json_object(json!({ "file": file, "settings": settings }))?,
                Format::Quiet => output::write_lines(settings.iter().map(|row| output::text(&row["setting"])))?,
                Format::Table => {
                    let row = |row: &Value| ["setting", "value", "from"].map(|name| output::text(&row[name])).to_vec();
                    output::write_table(&["setting", "value", "from"], settings.iter().map(row))?;
                }
            }
        }
    }
    Ok(())
}

/// All settings as Markdown: what docs/config.md is made of.
fn reference(command: &Command) -> String {
    let mut page = "# Settings\n\nWritten by `volley config reference`; a test fails when it is not up to date. Keys of `volley.toml`; \
        `VOLLEY_*` overrides the file, a flag `--KEY` overrides both. See [running](running.md).\n"
        .to_owned();
    page += "\n## Of all commands\n";
    page += &table_of(command);
    for section in SECTIONS {
        page += &format!("\n## `[{section}]`\n");
        page += &command.find_subcommand(section).map(table_of).unwrap_or_default();
    }
    page
}

fn table_of(command: &Command) -> String {
    let mut table = "\n| key | environment | default | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for arg in command.get_arguments() {
        let Some(key) = arg.get_long().filter(|flag| !matches!(*flag, "help" | "version" | "config")) else { continue };
        let environment = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
        let values: Vec<String> =
            arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        table += &format!("| `{key}` | {environment} | {} | {help} |\n", values.join(", "));
    }
    table
}

fn shown(command: &Command, places: &Places, file: &str) -> Result<Vec<Value>, CommandError> {
    let mut all = Vec::new();
    for section in SECTIONS {
        let matches = command.clone().try_get_matches_from(["volley", section]);
        let matches = matches.map_err(|error| CommandError::from_clap(&error))?;
        let inner = matches.subcommand_matches(section).expect("the command that was asked for");
        let of_section = command.find_subcommand(section).expect("a section is a command");
        if all.is_empty() {
            all.extend(rows("", command, &matches, places, file));
        }
        all.extend(rows(section, of_section, inner, places, file));
    }
    Ok(all)
}

fn rows(section: &str, command: &Command, matches: &ArgMatches, places: &Places, file: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    for arg in command.get_arguments() {
        let Some(flag) = arg.get_long().filter(|flag| !matches!(*flag, "help" | "version")) else { continue };
        let id = arg.get_id().as_str();
        let values = matches.get_raw(id).into_iter().flatten();
        let value = values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(", ");
        let from = match (matches.value_source(id), places.get(&(section.to_owned(), flag.to_owned()))) {
            (Some(ValueSource::EnvVariable), _) => {
                arg.get_env().map_or_else(|| "environment".to_owned(), |name| name.to_string_lossy().into_owned())
            }
            (Some(ValueSource::DefaultValue), Some(line)) => format!("{file}:{line}"),
            (Some(ValueSource::DefaultValue), None) => "default".to_owned(),
            (Some(_), _) => "flag".to_owned(),
            (None, _) => "not set".to_owned(),
        };
        let hidden = SECRETS.contains(&flag) && !value.is_empty();
        let value = match flag {
            _ if hidden => "(hidden)".to_owned(),
            // Its address may have a password in it.
            "store" => volley_store::redis::without_secret(&value),
            _ => value,
        };
        let setting = if section.is_empty() { flag.to_owned() } else { format!("{section}.{flag}") };
        rows.push(json!({ "setting": setting, "value": value, "from": from }));
    }
    rows
}

/// `volley completions SHELL`.
pub fn completions(shell: Shell, mut command: Command) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "volley", &mut script);
    Ok(output::write(&String::from_utf8_lossy(&script))?)
}

/// `volley man`.
pub fn man(man: &Man, command: Command) -> Result<(), CommandError> {
    match &man.dir {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            Ok(output::write(&String::from_utf8_lossy(&page))?)
        }
        Some(dir) => {
            let cannot =
                |error: std::io::Error| CommandError::Failed(format!("no pages in {}: {error}", dir.display()));
            std::fs::create_dir_all(dir).map_err(cannot)?;
            clap_mangen::generate_to(command, dir).map_err(cannot)
        }
    }
}
