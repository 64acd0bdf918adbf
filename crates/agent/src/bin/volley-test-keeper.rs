//! The keeper as a program of its own, for this crate's tests; `volley` itself is the keeper of
//! its workers.

fn main() -> std::process::ExitCode {
    match std::env::args_os().nth(1) {
        Some(dir) => volley_agent::keeper::run(dir.as_ref()),
        None => std::process::ExitCode::from(2),
    }
}
