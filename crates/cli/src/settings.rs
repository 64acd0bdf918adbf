//! `volley.toml`: settings as defaults of the flags of the same name, so that the environment and
//! the command line override them and one parser judges all three. Knows no setting by name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::command_error::CommandError;

/// Looked for in the current folder.
const FILE: &str = "volley.toml";
/// A larger file is no settings.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Commands that run for long and so have settings in a table of their name; other keys are of all commands.
pub const SECTIONS: &[&str] = &["serve", "worker", "dev"];
/// No settings: what a file about files would mean is nobody's guess.
const NOT_IN_FILE: &[&str] = &["config", "help", "version"];

/// Where each setting of a file is: section (empty for all commands) and flag, to the file's line.
pub type Places = BTreeMap<(String, String), usize>;

/// The file that is used: the one named, or the one in this folder.
pub fn file(args: &[OsString]) -> Result<Option<PathBuf>, CommandError> {
    let mut args = args.iter().map(|arg| arg.to_string_lossy().into_owned());
    while let Some(arg) = args.next() {
        if arg == "--" {
            break;
        }
        if arg == "--config" {
            return Ok(args.next().map(PathBuf::from));
        }
        if let Some(named) = arg.strip_prefix("--config=") {
            return Ok(Some(PathBuf::from(named)));
        }
    }
    if let Some(named) = std::env::var_os("VOLLEY_CONFIG").filter(|named| !named.is_empty()) {
        return Ok(Some(PathBuf::from(named)));
    }
    Ok(Path::new(FILE).exists().then(|| PathBuf::from(FILE)))
}

/// A mistake with its place, as editors understand it.
fn wrong(file: &Path, source: &str, span: Range<usize>, problem: &str) -> CommandError {
    let (line, column) = place(source, span.start);
    CommandError::Usage(format!("{}:{line}:{column}: {problem}", file.display()))
}

fn place(source: &str, at: usize) -> (usize, usize) {
    let before = &source[..at.min(source.len())];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The command with a file's settings as its defaults, and where each was said.
pub fn with_file(mut command: Command, file: &Path) -> Result<(Command, Places), CommandError> {
    let unreadable =
        |error: &dyn std::fmt::Display| CommandError::Usage(format!("cannot read {}: {error}", file.display()));
    if std::fs::metadata(file).map_err(|error| unreadable(&error))?.len() > FILE_BYTES_MAX {
        return Err(unreadable(&"it is larger than 1 MiB"));
    }
    let source = std::fs::read_to_string(file).map_err(|error| unreadable(&error))?;
    let table = DeTable::parse(&source)
        .map_err(|error| wrong(file, &source, error.span().unwrap_or_default(), error.message()))?;
    let mut places = Places::new();
    for (key, value) in table.get_ref() {
        let name = key.get_ref().to_string();
        let at = |span| place(&source, span).0;
        match value.get_ref() {
            DeValue::Table(inner) if SECTIONS.contains(&name.as_str()) => {
                for (key, value) in inner {
                    let flag = key.get_ref().replace('_', "-");
                    let mut result = Ok(());
                    command = command.mut_subcommand(&name, |section| match set(section.clone(), &flag, value) {
                        Ok(section) => section,
                        Err(problem) => {
                            result = Err(problem);
                            section
                        }
                    });
                    result.map_err(|problem| mistake(file, &source, key.span(), value, &problem))?;
                    places.insert((name.clone(), flag), at(key.span().start));
                }
            }
            _ => {
                let flag = name.replace('_', "-");
                command = set(command, &flag, value)
                    .map_err(|problem| mistake(file, &source, key.span(), value, &problem))?;
                places.insert((String::new(), flag), at(key.span().start));
            }
        }
    }
    Ok((command, places))
}

enum Mistake {
    Key(String),
    Value(String),
}

fn mistake(
    file: &Path,
    source: &str,
    key: Range<usize>,
    value: &Spanned<DeValue<'_>>,
    problem: &Mistake,
) -> CommandError {
    match problem {
        Mistake::Key(words) => wrong(file, source, key, words),
        Mistake::Value(words) => wrong(file, source, value.span(), words),
    }
}

/// A command with one flag's default replaced, if there is such a flag and it takes the value.
fn set(command: Command, flag: &str, value: &Spanned<DeValue<'_>>) -> Result<Command, Mistake> {
    let found = command.get_arguments().find(|arg| arg.get_long() == Some(flag) && !NOT_IN_FILE.contains(&flag));
    let Some(found) = found.cloned() else {
        let known = command.get_arguments().filter_map(|arg| arg.get_long());
        let known: Vec<&str> = known.filter(|known| !NOT_IN_FILE.contains(known)).collect();
        return Err(Mistake::Key(format!("unknown setting '{flag}'; there are {}", known.join(", "))));
    };
    let many = matches!(found.get_action(), ArgAction::Append);
    let values = texts(value.get_ref(), many).ok_or_else(|| {
        let right = if many { "a value or a list of values" } else { "one value" };
        Mistake::Value(format!("'{flag}' takes {right}"))
    })?;
    let id = found.get_id().clone();
    let trial = found.clone().default_values(values.clone()).required(false).global(false);
    // The flag alone, so that the error is about this value.
    let trial = strip(trial);
    if let Err(error) = Command::new("volley").arg(trial).try_get_matches_from(["volley"]) {
        let words = CommandError::from_clap(&error).to_string();
        return Err(Mistake::Value(words.trim_end_matches("; see --help").to_owned()));
    }
    Ok(command.mut_arg(id.as_str(), |arg| arg.default_values(values)))
}

/// Without what ties a flag to others or to the environment.
fn strip(arg: clap::Arg) -> clap::Arg {
    let mut alone = clap::Arg::new(arg.get_id().clone()).long(arg.get_long().unwrap_or("flag").to_owned());
    alone = alone.action(arg.get_action().clone()).value_parser(arg.get_value_parser().clone());
    alone.default_values(arg.get_default_values().to_vec())
}

/// A value as it would be written on the command line.
fn texts(value: &DeValue<'_>, many: bool) -> Option<Vec<String>> {
    match value {
        DeValue::String(text) => Some(vec![text.to_string()]),
        DeValue::Integer(number) => Some(vec![number.to_string()]),
        DeValue::Float(number) => Some(vec![number.to_string()]),
        DeValue::Boolean(flag) => Some(vec![flag.to_string()]),
        DeValue::Array(items) if many => {
            let mut all = Vec::new();
            for item in items {
                all.extend(texts(item.get_ref(), false)?);
            }
            Some(all)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};
    use proptest::prelude::*;

    use super::*;
    use crate::args::Cli;

    fn read(text: &str) -> Result<Command, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("volley.toml");
        std::fs::write(&file, text).expect("it is ours");
        let told = |error: CommandError| error.to_string().rsplit_once('/').expect("a path").1.to_owned();
        with_file(Cli::command(), &file).map(|(command, _)| command).map_err(told)
    }

    #[test]
    fn mistakes_are_told_with_line_and_column() {
        let table = [
            ("[serve]\nlissten = 1", "volley.toml:2:1: unknown setting 'lissten'; there are "),
            ("server = \"http://x\"\n  tokken = 'a'", "volley.toml:2:3: unknown setting 'tokken'; there are "),
            ("[serve]\nbacklog-max = \"many\"", "volley.toml:2:15: invalid value 'many'"),
            ("[serve]\nworker_lease = '1 fortnight'", "volley.toml:2:16: invalid value '1 fortnight'"),
            ("[serve]\nlisten = ['a', 'b']", "volley.toml:2:10: 'listen' takes one value"),
            ("[serve\n", "volley.toml:1:"),
            ("[ps]\nall = true", "volley.toml:1:2: unknown setting 'ps'"),
        ];
        for (text, start) in table {
            let told = read(text).expect_err(text);
            assert!(told.starts_with(start), "{text}: {told}");
        }
    }

    fn words() -> impl Strategy<Value = String> {
        let known = ["serve", "worker", "listen", "data", "tokens", "output", "server", "[", "]", "=", "\n", "'json'"];
        let more = ["\"", "1", "true", "[serve]\n", "backlog-max", "{", "}", ".", ",", "1979-05-27", "inf", "-", "#"];
        prop_oneof![
            8 => prop::sample::select([&known[..], &more[..]].concat()).prop_map(str::to_owned),
            1 => any::<String>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_read_or_refused_with_its_place(words in prop::collection::vec(words(), 0..40)) {
            let text = words.join("");
            if let Err(told) = read(&text) {
                prop_assert!(told.starts_with("volley.toml:"), "{text:?}: {told}");
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let file = dir.path().join("volley.toml");
            std::fs::write(&file, bytes).expect("it is ours");
            let _ = with_file(Cli::command(), &file);
        }
    }

    #[test]
    fn a_flag_overrides_the_file() {
        let command = read("output = 'json'\n[serve]\nlisten = '127.0.0.1:1'\ntokens = true").expect("no mistake");
        let listen = |args: &[&str]| {
            let matches = command.clone().try_get_matches_from(args).expect("good arguments");
            let serve = matches.subcommand_matches("serve").expect("that command");
            let cli = Cli::from_arg_matches(&matches).expect("good arguments");
            let raw = serve.get_raw("listen").and_then(|mut values| values.next()).expect("it has a value");
            (raw.to_string_lossy().into_owned(), serve.get_flag("tokens"), cli.global.output)
        };
        use crate::output::Format;
        assert_eq!(listen(&["volley", "serve"]), ("127.0.0.1:1".to_owned(), true, Format::Json));
        let given = listen(&["volley", "serve", "--listen", "127.0.0.1:2", "-o", "quiet"]);
        assert_eq!(given, ("127.0.0.1:2".to_owned(), true, Format::Quiet));
    }
}
