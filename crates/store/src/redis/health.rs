//! What a server must be and what it should be: its version, that it never forgets a key by
//! itself, how much it can lose, and whether it has. Looked at when a store is opened and again
//! and again while it is used. Knows no operations.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use volley_model::EventNumber;

use super::RedisOpenError;
use super::connection::Connection;
use crate::StoreError;

/// The layout of the keys that this version reads and writes.
const LAYOUT: u32 = 1;
/// The oldest server whose scripts know flags and whose sorted sets know ranges as we ask them.
const VERSION_MIN: (u32, u32) = (7, 0);
/// Times that the server went back that are remembered: the last ones tell.
const LOSSES_KEPT: usize = 10;

/// What is known of the server now.
#[derive(Debug, Default)]
pub(super) struct Health {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What its settings can lose.
    settings: Vec<String>,
    /// Its policy, if it may drop keys by itself.
    evicts: Option<String>,
    /// What it did lose.
    losses: Vec<String>,
    /// The last event that was heard of.
    last_event: EventNumber,
    /// The process that answered last, and how many there were.
    process: String,
    processes: u64,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In words, what can be lost and what was.
    pub(super) fn warnings(&self) -> Vec<String> {
        let known = self.lock();
        let evicts = known.evicts.iter().map(|policy| RedisOpenError::Evicts { policy: policy.clone() }.to_string());
        evicts.chain(known.settings.iter().cloned()).chain(known.losses.iter().cloned()).collect()
    }

    /// Why nothing new is to be taken on, if so: a server that may drop keys by itself would lose it.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        let policy = self.lock().evicts.clone()?;
        Some(StoreError::Unavailable { reason: RedisOpenError::Evicts { policy }.to_string() })
    }

    /// An event was told of.
    pub(super) fn on_event(&self, number: EventNumber) {
        let mut known = self.lock();
        known.last_event = known.last_event.max(number);
    }

    /// How many processes have answered.
    pub(super) fn incarnation(&self) -> u64 {
        self.lock().processes
    }

    /// What a server says of itself, and its last event, read after a new connection was made: an event before what was
    /// told of is a server that has lost writes.
    pub(super) fn on_reconnected(&self, info: &str, last: EventNumber) {
        let mut known = self.lock();
        let process = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or_default().trim();
        if known.process != process {
            process.clone_into(&mut known.process);
            known.processes += 1;
        }
        let told = std::mem::replace(&mut known.last_event, last);
        if last >= told {
            return;
        }
        let loss = format!(
            "the server went back from event {} to {}: what was acknowledged in between is not known any more (a \
             failover, or a copy that was put back); what only workers know of is stopped there",
            told.0, last.0
        );
        tracing::error!("{loss}");
        known.losses.push(loss);
        if known.losses.len() > LOSSES_KEPT {
            known.losses.remove(0);
        }
    }

    fn on_settings(&self, found: Result<Vec<String>, RedisOpenError>) {
        let mut known = self.lock();
        let (settings, evicts) = match found {
            Ok(settings) => (settings, None),
            Err(RedisOpenError::Evicts { policy }) => (Vec::new(), Some(policy)),
            // It does not answer; what was known stays.
            Err(_) => return,
        };
        for warning in settings.iter().filter(|warning| !known.settings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        if let (Some(policy), None) = (&evicts, &known.evicts) {
            tracing::error!("maxmemory-policy is now '{policy}': nothing new is taken on until it is noeviction again");
        }
        (known.settings, known.evicts) = (settings, evicts);
    }
}

/// Looks at the settings again and again, until the task is ended.
pub(super) async fn watch(connection: Arc<Connection>, health: Arc<Health>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        health.on_settings(look(&connection).await);
    }
}

/// The settings as they are now, judged.
async fn look(connection: &Connection) -> Result<Vec<String>, RedisOpenError> {
    check_settings(&settings(connection).await?)
}

/// Checks a server before it is used, and marks an empty cell as ours.
pub(super) async fn check(connection: &Connection, meta_key: &str) -> Result<Health, RedisOpenError> {
    let info: String = connection.ask(redis::cmd("INFO").arg("server")).await?;
    check_version(&info)?;
    let settings = match look(connection).await {
        // Hosted servers often do not say.
        Err(RedisOpenError::Store(error)) => vec![format!("the server does not say how it keeps its data ({error})")],
        judged => judged?,
    };
    let mut mark = redis::cmd("HSETNX");
    let _: i64 = connection.ask(mark.arg(meta_key).arg("layout").arg(LAYOUT)).await?;
    let found: u32 = connection.ask(redis::cmd("HGET").arg(meta_key).arg("layout")).await?;
    if found > LAYOUT {
        return Err(RedisOpenError::Newer { found, known: LAYOUT });
    }
    let health = Health::default();
    health.on_settings(Ok(settings));
    Ok(health)
}

fn check_version(info: &str) -> Result<(), RedisOpenError> {
    // Valkey says its own version beside the one it is compatible with.
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let version = field("valkey_version:").or_else(|| field("redis_version:")).unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < VERSION_MIN {
        return Err(RedisOpenError::TooOld { found: version.to_owned() });
    }
    Ok(())
}

async fn settings(connection: &Connection) -> Result<HashMap<String, String>, StoreError> {
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg("maxmemory").arg("maxmemory-policy").arg("appendonly").arg("appendfsync");
    connection.ask(&ask).await
}

/// Eviction is refused: a key that the server drops by itself is a container lost.
fn check_settings(settings: &HashMap<String, String>) -> Result<Vec<String>, RedisOpenError> {
    let setting = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
    let policy = setting("maxmemory-policy");
    if policy != "noeviction" && !policy.is_empty() {
        return Err(RedisOpenError::Evicts { policy: policy.to_owned() });
    }
    let mut warnings = Vec::new();
    match (setting("appendonly"), setting("appendfsync")) {
        ("yes", "always") => {}
        ("yes", fsync) => warnings.push(format!(
            "appendfsync is '{fsync}': a power cut can lose the last acknowledged writes; set appendfsync always"
        )),
        _ => warnings.push(
            "appendonly is off: a restart of the server can lose everything since its last snapshot; set appendonly \
             yes and appendfsync always"
                .to_owned(),
        ),
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_server_that_may_evict_is_refused_and_weak_persistence_is_said() {
        let evicts = check_settings(&settings(&[("maxmemory-policy", "allkeys-lru")]));
        assert!(matches!(evicts, Err(RedisOpenError::Evicts { policy }) if policy == "allkeys-lru"));
        let strong = [("maxmemory-policy", "noeviction"), ("appendonly", "yes"), ("appendfsync", "always")];
        assert_eq!(check_settings(&settings(&strong)).unwrap(), Vec::<String>::new());
        let second = [("maxmemory-policy", "noeviction"), ("appendonly", "yes"), ("appendfsync", "everysec")];
        assert!(check_settings(&settings(&second)).unwrap()[0].contains("everysec"));
        assert!(check_settings(&settings(&[("appendonly", "no")])).unwrap()[0].contains("appendonly is off"));
    }

    #[test]
    fn a_server_that_went_back_is_said_and_one_that_went_on_is_not() {
        let health = Health::default();
        health.on_event(EventNumber(5));
        health.on_event(EventNumber(3));
        health.on_reconnected("redis_version:7\r\nrun_id:a\r\n", EventNumber(7));
        assert_eq!(health.incarnation(), 1);
        assert_eq!(health.warnings(), Vec::<String>::new());
        health.on_reconnected("run_id:b\r\n", EventNumber(4));
        assert_eq!(health.incarnation(), 2);
        assert!(health.warnings()[0].contains("from event 7 to 4"), "{:?}", health.warnings());
        health.on_reconnected("run_id:b\r\n", EventNumber(4));
        assert_eq!((health.warnings().len(), health.incarnation()), (1, 2), "once");
    }

    #[test]
    fn settings_that_changed_are_judged_again() {
        let health = Health::default();
        health.on_settings(Ok(vec!["weak".to_owned()]));
        assert_eq!((health.warnings(), health.refusal().is_none()), (vec!["weak".to_owned()], true));
        health.on_settings(Err(RedisOpenError::Evicts { policy: "allkeys-lru".to_owned() }));
        assert!(health.warnings()[0].contains("allkeys-lru"));
        assert!(matches!(health.refusal(), Some(StoreError::Unavailable { reason }) if reason.contains("noeviction")));
        health.on_settings(Err(RedisOpenError::Store(StoreError::Closed)));
        assert!(health.refusal().is_some(), "silence changes nothing");
        health.on_settings(Ok(Vec::new()));
        assert!(health.refusal().is_none() && health.warnings().is_empty());
    }

    #[test]
    fn old_servers_are_refused() {
        assert!(check_version("redis_version:7.0.15\r\n").is_ok());
        assert!(check_version("redis_version:7.2.4\r\nvalkey_version:8.0.1\r\n").is_ok());
        assert!(matches!(check_version("redis_version:6.2.7\r\n"), Err(RedisOpenError::TooOld { .. })));
        assert!(check_version("nothing").is_err());
    }
}
