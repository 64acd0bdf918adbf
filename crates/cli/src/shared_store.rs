//! Opens a cell in Redis, and waits for a server that is not there yet: machines that start
//! together need no order. Knows nothing of what the store is used for.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use volley_store::Store as _;
use volley_store::redis::{RedisOpenError, RedisOptions, RedisStore, without_secret};

use crate::command_error::CommandError;

/// Wait before the second try, and the longest; doubles with each.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Tries until the server answers, or `patience` is over.
pub async fn open(options: RedisOptions, patience: Duration) -> Result<RedisStore, CommandError> {
    let (started, mut wait, mut said) = (Instant::now(), WAIT.0, String::new());
    let place = format!("{} (cell {})", without_secret(&options.url), options.cell);
    loop {
        let reason = match ready(options.clone()).await {
            Ok(store) => {
                for warning in store.warnings() {
                    eprintln!("warning: {warning}");
                }
                return Ok(store);
            }
            Err(error @ (RedisOpenError::Url { .. } | RedisOpenError::Cell { .. })) => {
                return Err(CommandError::Usage(error.to_string()));
            }
            Err(RedisOpenError::Store(error)) => error.to_string(),
            Err(other) => return Err(CommandError::Unreachable(other.to_string())),
        };
        let left = patience.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(CommandError::Unreachable(format!("{place} did not answer within {patience:?}: {reason}")));
        }
        if reason != said {
            eprintln!("waiting for {place}: {reason}");
            said = reason;
        }
        // Servers that were started together do not come together.
        let spread = wait.mul_f64(rand::rng().random_range(0.5..=1.0));
        tokio::time::sleep(spread.min(left)).await;
        wait = (wait * 2).min(WAIT.1);
    }
}

/// A store whose scripts are loaded: its first calls are as fast as any.
async fn ready(options: RedisOptions) -> Result<RedisStore, RedisOpenError> {
    let store = RedisStore::open(options).await?;
    store.load_scripts().await.map_err(RedisOpenError::Store)?;
    Ok(store)
}
