//! Settings: one optional `volley.toml`, overridden by `VOLLEY_*`, overridden by flags. All
//! parsing is here; the other crates get typed options.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Deserializer};
use volley_model::{Bytes, CpuMilli, Millis, Pool, PoolName, WorkerId};

use crate::command_error::CommandError;

/// Read when it is there and no other file is named.
pub const DEFAULT_FILE: &str = "volley.toml";
/// Where commands look for a server.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7171";

/// A value written as people write it (`500m`, `1Gi`, `30s`), in files as on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<T>(pub T);

impl<T> FromStr for Written<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Written).map_err(|error: T::Err| error.to_string())
    }
}

impl<'de, T> Deserialize<'de> for Written<T>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `KEY=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair(pub String, pub String);

impl FromStr for Pair {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Pair(key.to_owned(), value.to_owned())),
            _ => Err(format!("'{text}' is not KEY=VALUE")),
        }
    }
}

/// GPUs that a worker declares: `H100:2` or `H100`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredGpus {
    /// Their kind.
    pub kind: String,
    /// How many devices.
    pub count: u16,
}

impl FromStr for DeclaredGpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, count) = text.split_once(':').unwrap_or((text, "1"));
        let max = volley_model::capacity::GPU_DEVICES_MAX as u16;
        match count.parse() {
            Ok(count @ 1..) if count <= max && !kind.is_empty() => Ok(Self { kind: kind.to_owned(), count }),
            _ => Err(format!("'{text}' is not KIND:COUNT with a count of 1 to {max}, as in H100:2")),
        }
    }
}

/// How arrivals are gathered into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// 10 ms, at most 20 containers.
    Latency,
    /// 50 ms, at most 100.
    Balanced,
    /// 100 ms, at most 200.
    Throughput,
    /// No fixed wait: what gathered while the last batch committed, at most 1,000.
    Auto,
}

/// How batches are gathered.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchSettings {
    /// Batch window and size in one word.
    #[arg(long, value_enum, env = "VOLLEY_PROFILE")]
    pub profile: Option<Profile>,
    /// How long a batch gathers at most, counted from its first container (overrides the profile).
    #[arg(long, value_name = "TIME", env = "VOLLEY_WINDOW")]
    pub window: Option<Written<Millis>>,
    /// Most containers of a batch; 1 is one-at-a-time scheduling (overrides the profile).
    #[arg(long, value_name = "N", env = "VOLLEY_MAX_SIZE", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_size: Option<u32>,
}

/// What a server is told.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServeSettings {
    /// Folder of the store; one server process each.
    #[arg(long, value_name = "DIR", env = "VOLLEY_DATA")]
    pub data: Option<PathBuf>,
    /// Address to listen on; loopback only for now. Port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS", env = "VOLLEY_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// A worker that says nothing for this long is lost (default 60s).
    #[arg(long, value_name = "TIME", env = "VOLLEY_WORKER_LEASE")]
    pub worker_lease: Option<Written<Millis>>,
    /// Most containers that may wait; more are refused until some have run.
    #[arg(long, value_name = "N", env = "VOLLEY_BACKLOG_MAX", value_parser = clap::value_parser!(u64).range(1..))]
    pub backlog_max: Option<u64>,
    /// How long finished containers are kept.
    #[arg(long, value_name = "TIME", env = "VOLLEY_FINISHED_KEEP")]
    pub finished_keep: Option<Written<Millis>>,
}

/// What a worker is told. What is absent is detected on the machine.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkerSettings {
    /// Its name, stable over restarts (default: the host's name).
    #[arg(long, env = "VOLLEY_WORKER_NAME")]
    pub name: Option<WorkerId>,
    /// The pool it belongs to.
    #[arg(long, env = "VOLLEY_POOL")]
    pub pool: Option<PoolName>,
    /// CPU it offers, as in 4 or 500m (default: the machine's).
    #[arg(long, value_name = "CPU", env = "VOLLEY_CPU")]
    pub cpu: Option<Written<CpuMilli>>,
    /// Memory it offers, as in 8Gi (default: the machine's).
    #[arg(long, value_name = "BYTES", env = "VOLLEY_MEMORY")]
    pub memory: Option<Written<Bytes>>,
    /// Most containers at a time.
    #[arg(long, value_name = "N", env = "VOLLEY_SLOTS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub slots: Option<u32>,
    /// GPUs it declares, as in H100:2; repeat for more kinds.
    #[arg(long, value_name = "KIND:COUNT", env = "VOLLEY_GPUS", value_delimiter = ',')]
    pub gpus: Vec<DeclaredGpus>,
    /// Labels that containers can require.
    #[arg(long = "label", value_name = "KEY=VALUE", env = "VOLLEY_LABELS", value_delimiter = ',')]
    pub labels: Vec<Pair>,
    /// Folder for its containers and their output (default: .volley/workers/NAME).
    #[arg(long, value_name = "DIR", env = "VOLLEY_STATE")]
    pub state: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for DeclaredGpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// Where commands and workers look for a server.
    pub server: Option<String>,
    /// For `serve` and `dev`.
    pub serve: ServeSettings,
    /// For `serve`, `dev` and `run --local`.
    pub batch: BatchSettings,
    /// For `worker` and `dev`.
    pub worker: WorkerSettings,
    /// Applied to the store by `volley pools apply`.
    pub pools: Vec<Pool>,
}

impl File {
    /// Reads the named file, or `volley.toml` here if it exists.
    pub fn load(named: Option<&Path>) -> Result<Self, CommandError> {
        let path = named.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => {
                let problem = format!("cannot read the configuration {}: {error}", path.display());
                Err(CommandError::Usage(problem))
            }
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, CommandError> {
        toml::from_str(text).map_err(|error| {
            let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
            CommandError::Usage(format!("{}:{line}:{column}: {}", path.display(), error.message()))
        })
    }
}

/// Both counted from 1, columns in characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

impl BatchSettings {
    /// Flags and environment first, then the file.
    pub fn or(self, file: Self) -> Self {
        Self {
            profile: self.profile.or(file.profile),
            window: self.window.or(file.window),
            max_size: self.max_size.or(file.max_size),
        }
    }
}

impl ServeSettings {
    /// Flags and environment first, then the file.
    pub fn or(self, file: Self) -> Self {
        Self {
            data: self.data.or(file.data),
            listen: self.listen.or(file.listen),
            worker_lease: self.worker_lease.or(file.worker_lease),
            backlog_max: self.backlog_max.or(file.backlog_max),
            finished_keep: self.finished_keep.or(file.finished_keep),
        }
    }
}

impl WorkerSettings {
    /// Flags and environment first, then the file.
    pub fn or(self, file: Self) -> Self {
        Self {
            name: self.name.or(file.name),
            pool: self.pool.or(file.pool),
            cpu: self.cpu.or(file.cpu),
            memory: self.memory.or(file.memory),
            slots: self.slots.or(file.slots),
            gpus: if self.gpus.is_empty() { file.gpus } else { self.gpus },
            labels: if self.labels.is_empty() { file.labels } else { self.labels },
            state: self.state.or(file.state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let error = File::parse(Path::new("volley.toml"), text).expect_err("a mistake").to_string();
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn mistakes_are_shown_with_line_and_column() {
        check("server = 1\n", "volley.toml:1:10: invalid type: integer `1`");
        check("\nserve.lissen = \"x\"\n", "volley.toml:2:");
        check("[worker]\nname = \"a\"\ncpu = \"-3\"\n", "volley.toml:3:7: ");
        check("[serve]\nworker_lease = 5\n", "volley.toml:2:16: ");
        check("[[pools]]\nname = \"a\"\nstrategy = \"heap\"\n", "volley.toml:3:12: unknown variant `heap`");
        check("[worker", "volley.toml:1:8: ");
    }

    #[test]
    fn a_whole_file_reads() {
        let text = "server = \"http://127.0.0.1:9\"\n\
            [serve]\nlisten = \"127.0.0.1:0\"\nworker_lease = \"2s\"\n[batch]\nprofile = \"auto\"\nwindow = \"5ms\"\nmax_size = 7\n\
            [worker]\nname = \"w1\"\ncpu = \"1500m\"\nmemory = \"1Gi\"\ngpus = [\"H100:2\"]\nlabels = [\"zone=a\"]\n\
            [[pools]]\nname = \"gpu\"\npriority = 3\nstrategy = \"spread\"\ncpu_on_gpu = true\n";
        let file = File::parse(Path::new("volley.toml"), text).expect("a good file");
        assert_eq!(file.batch.max_size, Some(7));
        assert_eq!(file.serve.worker_lease, Some(Written(Millis(2000))));
        assert_eq!(file.worker.cpu, Some(Written(CpuMilli(1500))));
        assert_eq!(file.worker.gpus, [DeclaredGpus { kind: "H100".to_owned(), count: 2 }]);
        assert_eq!(file.pools[0].priority, 3);
        let flags = ServeSettings { listen: Some("127.0.0.1:5".parse().expect("an address")), ..Default::default() };
        let merged = flags.or(file.serve);
        assert_eq!(merged.listen.map(|l| l.port()), Some(5));
        assert_eq!(merged.worker_lease, Some(Written(Millis(2000))));
        let flags = BatchSettings { profile: Some(Profile::Latency), ..Default::default() };
        let merged = flags.or(file.batch);
        assert_eq!((merged.profile, merged.max_size), (Some(Profile::Latency), Some(7)));
    }
}
