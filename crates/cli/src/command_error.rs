//! What goes wrong in a command: one line for people and an exit code for scripts. The codes
//! are documented in docs/cli.md and never change their meaning.

use std::fmt;

use clap::error::ErrorKind;
use volley_wire::access::AccessError;
use volley_wire::client::ClientError;

/// How a command failed. The text says what, where and how to mend it, on one line.
#[derive(Debug)]
pub enum CommandError {
    /// Something else failed, as the text says: exit code 1.
    Failed(String),
    /// The command line, the configuration or the request is wrong: exit code 2.
    Usage(String),
    /// No server answers, or one could not be started: exit code 3.
    Unreachable(String),
    /// There is no such thing: exit code 4.
    NotFound(String),
    /// The server refused it in its present state (full backlog, reused key, more than one such id): exit code 5.
    Refused(String),
    /// The server failed or cannot answer for now: exit code 6.
    Server(String),
    /// Nothing to say beyond what was printed: this exit code.
    Ended(u8),
    /// The reader of our output went away (`volley ps | head`): not an error.
    BrokenPipe,
}

/// The exit code after Ctrl-C, as shells have it.
pub const INTERRUPTED: u8 = 130;

impl CommandError {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            CommandError::Failed(_) => 1,
            CommandError::Usage(_) => 2,
            CommandError::Unreachable(_) => 3,
            CommandError::NotFound(_) => 4,
            CommandError::Refused(_) => 5,
            CommandError::Server(_) => 6,
            CommandError::Ended(code) => *code,
            CommandError::BrokenPipe => 0,
        }
    }

    /// From the command line's parser: help and version are printed as they are, mistakes go on one line.
    pub fn from_clap(error: &clap::Error) -> Self {
        if !error.use_stderr() {
            return match error.print() {
                Ok(()) => CommandError::Ended(0),
                Err(error) => error.into(),
            };
        }
        if matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
            // No command at all: the list of commands says more than a line.
            let _ = error.print();
            return CommandError::Ended(2);
        }
        let text = error.render().to_string();
        let told = text.lines().take_while(|line| !line.starts_with("Usage:"));
        let told: Vec<&str> = told.map(str::trim).filter(|line| !line.starts_with("For more information")).collect();
        let told = one_line(&told.join("\n"));
        let told = told.strip_prefix("error: ").unwrap_or(&told).replace(":; ", ": ");
        CommandError::Usage(format!("{told}; see --help"))
    }

    /// Prints it, if there is something to say, and gives the exit code.
    pub fn report(&self) -> u8 {
        let text = self.to_string();
        if !text.is_empty() {
            // The last word of a process whose stderr is closed has nowhere to go.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("error: {text}\n").as_bytes());
        }
        self.code()
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Failed(text)
            | CommandError::Usage(text)
            | CommandError::Unreachable(text)
            | CommandError::NotFound(text)
            | CommandError::Refused(text)
            | CommandError::Server(text) => f.write_str(&one_line(text)),
            CommandError::Ended(_) | CommandError::BrokenPipe => Ok(()),
        }
    }
}

impl From<anyhow::Error> for CommandError {
    fn from(error: anyhow::Error) -> Self {
        CommandError::Failed(format!("{error:#}"))
    }
}

impl From<AccessError> for CommandError {
    fn from(error: AccessError) -> Self {
        CommandError::Usage(error.to_string())
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::Unreachable { .. } => CommandError::Unreachable(text),
            ClientError::Problem { status, .. } => match status.as_u16() {
                404 => CommandError::NotFound(text),
                401 | 403 | 409 | 429 => CommandError::Refused(text),
                400..=499 => CommandError::Usage(text),
                _ => CommandError::Server(text),
            },
        }
    }
}

/// Errors of writing to stdout.
impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => CommandError::BrokenPipe,
            _ => CommandError::Failed(format!("cannot write the output: {error}")),
        }
    }
}

/// Scripts read errors by line.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line() {
        let error = CommandError::Usage("first\n  second\n\n".to_owned());
        assert_eq!(error.to_string(), "first; second");
        assert_eq!(error.code(), 2);
    }

    #[test]
    fn mistakes_of_the_command_line_are_one_line() {
        let told = |args: &[&str]| {
            let error = <crate::args::Cli as clap::Parser>::try_parse_from(args).expect_err("a mistake");
            CommandError::from_clap(&error).to_string()
        };
        let told = [
            told(&["volley", "run", "--cuont", "3", "--", "true"]),
            told(&["volley", "run", "--cpu=-1", "--", "true"]),
            told(&["volley", "run"]),
        ];
        assert_eq!(
            told,
            [
                "unexpected argument '--cuont' found; tip: a similar argument exists: '--count'; tip: to pass \
                 '--cuont' as a value, use '-- --cuont'; see --help",
                "invalid value '-1' for '--cpu <CPU>': '-1' is not an amount of CPU: cores as in '2' or '0.5', or \
                 thousandths as in '500m'; see --help",
                "the following required arguments were not provided: <COMMAND>...; see --help",
            ]
        );
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let error = CommandError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!((error.code(), error.to_string()), (0, String::new()));
    }
}
