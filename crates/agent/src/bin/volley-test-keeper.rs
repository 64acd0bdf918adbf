//! The keeper as a program of its own, for this crate's tests; `volley` itself is the keeper of
//! its workers.

fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(dir) => volley_agent::keeper::run(dir.as_ref(), args),
        None => std::process::ExitCode::from(2),
    }
}
