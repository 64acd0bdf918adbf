//! States, outcomes and reasons in words, and the states' names back to values.

use std::fmt;
use std::str::FromStr;

use crate::{ContainerState, Outcome, Role, StopCause, WaitReason, WorkerStatus};

/// A text that names none of the values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {what}: use one of {known}")]
pub struct NameError {
    /// What was given (cut to 64 characters).
    pub text: String,
    /// What was expected.
    pub what: &'static str,
    /// All the names there are.
    pub known: &'static str,
}

macro_rules! names {
    ($type:ident, $what:literal, $known:literal, $($variant:ident = $name:literal),+) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $($type::$variant => $name),+ })
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                match text {
                    $($name => Ok($type::$variant),)+
                    _ => Err(NameError { text: text.chars().take(64).collect(), what: $what, known: $known }),
                }
            }
        }
    };
}

names!(
    ContainerState,
    "container state",
    "queued, claimed, assigned, starting, running, stopping, finished",
    Queued = "queued",
    Claimed = "claimed",
    Assigned = "assigned",
    Starting = "starting",
    Running = "running",
    Stopping = "stopping",
    Finished = "finished"
);
names!(
    WorkerStatus,
    "worker status",
    "provisioning, ready, cordoned, draining, lost, gone",
    Provisioning = "provisioning",
    Ready = "ready",
    Cordoned = "cordoned",
    Draining = "draining",
    Lost = "lost",
    Gone = "gone"
);

names!(
    Role,
    "role",
    "admin, submit, read, worker",
    Admin = "admin",
    Submit = "submit",
    Read = "read",
    Worker = "worker"
);

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Exited { signal: Some(signal), .. } => match signal_name(*signal) {
                Some(name) => write!(f, "killed by signal {signal} ({name})"),
                None => write!(f, "killed by signal {signal}"),
            },
            Outcome::Exited { code, signal: None } => write!(f, "exit code {code}"),
            Outcome::Stopped { by: StopCause::Client } => f.write_str("stopped"),
            Outcome::Stopped { by: StopCause::Drain } => f.write_str("stopped by a drain"),
            Outcome::Expired => f.write_str("waited longer than its max_wait"),
            Outcome::Unplaceable { reason } => write!(f, "no pool can serve it: {reason}"),
            Outcome::Lost => f.write_str("its worker was lost"),
            Outcome::Failed { reason } => write!(f, "failed: {reason}"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// `1 worker`, `2 workers`.
fn workers(count: u32) -> String {
    if count == 1 { "1 worker".to_owned() } else { format!("{count} workers") }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitReason::NoWorkers => f.write_str("there are no workers"),
            WaitReason::NotLookedAt => f.write_str("waiting for its turn"),
            WaitReason::Busy { pool, workers: count, cpu_short, memory_short, gpu_short, slots_short } => {
                write!(f, "{} of pool {pool} are full", workers(*count))?;
                let mut lacks = Vec::new();
                if let Some(cpu) = cpu_short {
                    lacks.push(format!("at least {cpu} CPU short"));
                }
                if let Some(memory) = memory_short {
                    lacks.push(format!("at least {} memory short", memory.rounded()));
                }
                if *gpu_short > 0 {
                    lacks.push(format!("{gpu_short} without free GPUs"));
                }
                if *slots_short > 0 {
                    lacks.push(format!("{slots_short} without free slots"));
                }
                if lacks.is_empty() { Ok(()) } else { write!(f, " ({})", lacks.join(", ")) }
            }
            WaitReason::Infeasible { pool, workers: count, because } => {
                write!(f, "{} of pool {pool} can never serve it: {because}", workers(*count))
            }
            WaitReason::Unavailable { workers: count } => {
                write!(f, "{} cordoned, draining, lost or not ready yet", workers(*count))
            }
            WaitReason::Held { worker } => write!(f, "room on worker {worker} is held for a container before it"),
        }
    }
}
