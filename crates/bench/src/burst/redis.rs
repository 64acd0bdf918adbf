//! The Redis or Valkey beneath a bench: one of its own on a Unix socket, or one that is named by a
//! URL. Says what it used and which call was its longest. Knows nothing of keys or scripts.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Client, Connection, RedisError};
use serde::{Deserialize, Serialize};

use super::BurstError;
use super::processes::Process;

/// A server has so long to load and answer.
const START_MAX: Duration = Duration::from_secs(20);
/// Between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(5);
/// Calls that take this long are noted by the server, in microseconds.
const NOTED_US: u64 = 1_000;
/// So many of them.
const NOTED_MAX: u64 = 1_024;
/// Keys looked at, and removed, at a time.
const KEYS_AT_A_TIME: u64 = 1_000;

/// Which server, and how it keeps what it acknowledges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisServer {
    /// One that is started for the bench, on a Unix socket, with an append-only file.
    Own {
        /// As in `redis-server` or `valkey-server`.
        program: String,
        /// `always`, `everysec` or `no`.
        appendfsync: String,
    },
    /// One that runs already; the bench's cell is removed at the end.
    At {
        /// As `volley serve --store` takes it.
        url: String,
    },
}

impl RedisServer {
    /// For the report; never with a password.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Own { program, appendfsync } => {
                format!("{program} of its own on a Unix socket, appendonly yes, appendfsync {appendfsync}")
            }
            Self::At { url } => format!("the Redis at {}", volley_store::redis::without_secret(url)),
        }
    }
}

/// What the server used for one case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RedisFigures {
    /// As it says itself.
    pub server: String,
    /// How it keeps what it acknowledges.
    pub appendfsync: String,
    /// Processor time of all its threads for each container.
    pub cpu_us_per_container: f64,
    /// Of its main thread, which runs the scripts.
    pub main_thread_us_per_container: f64,
    /// Scripts and commands for each container.
    pub commands_per_container: f64,
    /// The longest call in all repetitions, in milliseconds; for so long all others waited. 0: none took 1 ms.
    pub longest_call_ms: f64,
    /// Bytes of its data at the end.
    pub used_memory_bytes: u64,
}

/// What it has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    pub(super) cpu_ms: f64,
    pub(super) main_thread_ms: f64,
    pub(super) commands: u64,
}

impl Used {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            cpu_ms: self.cpu_ms - before.cpu_ms,
            main_thread_ms: self.main_thread_ms - before.main_thread_ms,
            commands: self.commands - before.commands,
        }
    }
}

/// A server that answers.
pub(super) struct RunningRedis {
    pub(super) url: String,
    pub(super) cell: String,
    connection: Connection,
    /// Ends with the bench.
    _process: Option<Process>,
}

fn failed(problem: impl std::fmt::Display) -> BurstError {
    BurstError::Process { what: "Redis", problem: problem.to_string() }
}

impl RunningRedis {
    pub(super) fn start(server: &RedisServer, dir: &Path) -> Result<Self, BurstError> {
        let cell = format!("bench-{}", std::process::id());
        let (url, process) = match server {
            RedisServer::At { url } => (url.clone(), None),
            RedisServer::Own { program, appendfsync } => {
                let socket = dir.join("redis.sock");
                let mut command = Command::new(program);
                command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", appendfsync]);
                command.args(["--logfile", "redis.log", "--dir"]).arg(dir).arg("--unixsocket").arg(&socket);
                let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
                let child = child.map_err(|error| failed(format!("{program} does not start: {error}")))?;
                (format!("redis+unix://{}", socket.display()), Some(Process(child)))
            }
        };
        let connection = Self::connect(&url, process.is_some())?;
        let mut running = Self { url, cell, connection, _process: process };
        if running._process.is_some() {
            running.note_long_calls().map_err(failed)?;
        }
        Ok(running)
    }

    fn connect(url: &str, starting: bool) -> Result<Connection, BurstError> {
        let client = Client::open(url).map_err(failed)?;
        let begin = Instant::now();
        loop {
            match client.get_connection_with_timeout(START_MAX) {
                Ok(connection) => return Ok(connection),
                Err(_) if starting && begin.elapsed() < START_MAX => std::thread::sleep(TRY_AGAIN),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    fn note_long_calls(&mut self) -> Result<(), RedisError> {
        for (setting, value) in [("slowlog-log-slower-than", NOTED_US), ("slowlog-max-len", NOTED_MAX)] {
            redis::cmd("CONFIG").arg("SET").arg(setting).arg(value).exec(&mut self.connection)?;
        }
        Ok(())
    }

    /// Forgets the long calls so far: they came before what is measured.
    pub(super) fn begin(&mut self) -> Result<(), BurstError> {
        redis::cmd("SLOWLOG").arg("RESET").exec(&mut self.connection).map_err(failed)
    }

    fn info(&mut self) -> Result<HashMap<String, String>, BurstError> {
        let text: String = redis::cmd("INFO").query(&mut self.connection).map_err(failed)?;
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    pub(super) fn used(&mut self) -> Result<Used, BurstError> {
        let info = self.info()?;
        let number = |name: &str| info.get(name).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        Ok(Used {
            cpu_ms: (number("used_cpu_sys") + number("used_cpu_user")) * 1e3,
            main_thread_ms: (number("used_cpu_sys_main_thread") + number("used_cpu_user_main_thread")) * 1e3,
            commands: number("total_commands_processed") as u64,
        })
    }

    /// What it is, its longest call since [`RunningRedis::begin`], and what it holds.
    pub(super) fn figures(&mut self) -> Result<RedisFigures, BurstError> {
        let info = self.info()?;
        let text = |name: &str| info.get(name).cloned().unwrap_or_default();
        let server = match info.get("valkey_version") {
            Some(version) => format!("Valkey {version}"),
            None => format!("Redis {}", text("redis_version")),
        };
        let mut ask = redis::cmd("CONFIG");
        let setting = ask.arg("GET").arg("appendfsync").query::<HashMap<String, String>>(&mut self.connection);
        let appendfsync = match (text("aof_enabled").as_str(), setting) {
            ("0", _) => "no append-only file".to_owned(),
            (_, Ok(settings)) => settings.into_values().next().unwrap_or_default(),
            (_, Err(error)) => format!("it does not say: {error}"),
        };
        let calls: Vec<Vec<redis::Value>> =
            redis::cmd("SLOWLOG").arg("GET").arg(NOTED_MAX).query(&mut self.connection).map_err(failed)?;
        let longest = calls.iter().filter_map(|call| match call.get(2) {
            Some(redis::Value::Int(us)) => Some(*us as f64 / 1e3),
            _ => None,
        });
        Ok(RedisFigures {
            server,
            appendfsync,
            longest_call_ms: longest.fold(0.0, f64::max),
            used_memory_bytes: text("used_memory").parse().unwrap_or_default(),
            ..RedisFigures::default()
        })
    }

    /// Removes the cell from a server that goes on without the bench.
    pub(super) fn end(mut self) -> Result<(), BurstError> {
        if self._process.is_some() {
            return Ok(());
        }
        let pattern = format!("{{volley:{}}}:*", self.cell);
        let mut cursor = 0;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(KEYS_AT_A_TIME);
            let (next, keys): (u64, Vec<Vec<u8>>) = scan.query(&mut self.connection).map_err(failed)?;
            if !keys.is_empty() {
                redis::cmd("UNLINK").arg(keys).exec(&mut self.connection).map_err(failed)?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}
