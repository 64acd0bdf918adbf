//! What a server must be and what it should be: its version, that it never forgets a key by
//! itself, and how much it can lose. Knows no operations.

use std::collections::HashMap;

use super::RedisOpenError;
use super::connection::Connection;
use crate::StoreError;

/// The layout of the keys that this version reads and writes.
const LAYOUT: u32 = 1;
/// The oldest server whose scripts know flags and whose sorted sets know ranges as we ask them.
const VERSION_MIN: (u32, u32) = (7, 0);

/// Checks a server before it is used, and marks an empty cell as ours. Gives the warnings.
pub(super) async fn check(connection: &Connection, meta_key: &str) -> Result<Vec<String>, RedisOpenError> {
    let info: String = connection.ask(redis::cmd("INFO").arg("server")).await?;
    check_version(&info)?;
    let warnings = match settings(connection).await {
        Ok(settings) => check_settings(&settings)?,
        // Hosted servers often do not say.
        Err(error) => vec![format!("the server does not say how it keeps its data ({error})")],
    };
    let mut mark = redis::cmd("HSETNX");
    let _: i64 = connection.ask(mark.arg(meta_key).arg("layout").arg(LAYOUT)).await?;
    let found: u32 = connection.ask(redis::cmd("HGET").arg(meta_key).arg("layout")).await?;
    if found > LAYOUT {
        return Err(RedisOpenError::Newer { found, known: LAYOUT });
    }
    Ok(warnings)
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
    fn old_servers_are_refused() {
        assert!(check_version("redis_version:7.0.15\r\n").is_ok());
        assert!(check_version("redis_version:7.2.4\r\nvalkey_version:8.0.1\r\n").is_ok());
        assert!(matches!(check_version("redis_version:6.2.7\r\n"), Err(RedisOpenError::TooOld { .. })));
        assert!(check_version("nothing").is_err());
    }
}
