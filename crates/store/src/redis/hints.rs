//! Hints over pub/sub: what scripts publish is told to whoever listens here. A lost one costs
//! time, never work: after a new subscription, and at every take interval, everything is
//! looked at. Knows nothing of the records.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::broadcast;
use volley_ledger::Hint;
use volley_model::{EventNumber, Timestamp, WorkerId};

use super::connection::Connection;
use super::health::Health;
use crate::StoreError;

/// Wait before the next attempt to subscribe.
const SUBSCRIBE_WAIT: Duration = Duration::from_millis(500);

/// Where hints come from and whom they are told.
pub(super) struct Listener {
    pub(super) connection: Arc<Connection>,
    pub(super) channel: String,
    pub(super) meta_key: String,
    pub(super) hints: broadcast::Sender<Hint>,
    pub(super) health: Arc<Health>,
}

/// Listens until the task is ended.
pub(super) async fn listen(listener: Listener) {
    loop {
        match listener.subscribe().await {
            Ok(()) => tracing::debug!("the subscription to hints ended"),
            Err(error) => tracing::debug!(%error, "no subscription to hints"),
        }
        tokio::time::sleep(SUBSCRIBE_WAIT).await;
    }
}

impl Listener {
    async fn subscribe(&self) -> Result<(), redis::RedisError> {
        let mut subscription = self.connection.client().get_async_pubsub().await?;
        subscription.subscribe(&self.channel).await?;
        if !self.look_for_losses().await {
            return Ok(());
        }
        // Whatever was told while nobody listened.
        let _ = self.hints.send(Hint::Ready { containers: 0 });
        let mut messages = subscription.on_message();
        while let Some(message) = messages.next().await {
            let lines: String = message.get_payload().unwrap_or_default();
            for hint in lines.lines().filter_map(hint_from) {
                if let Hint::Events(last) = hint {
                    self.health.on_event(last);
                }
                // Nobody may be listening.
                let _ = self.hints.send(hint);
            }
        }
        Ok(())
    }

    /// A subscription breaks when the server goes; the one that is there now may not have all that the other had.
    /// Whether that could be looked at.
    async fn look_for_losses(&self) -> bool {
        let looked = async {
            let info: String = self.connection.ask(redis::cmd("INFO").arg("server")).await?;
            let last: Option<u64> =
                self.connection.ask(redis::cmd("HGET").arg(&self.meta_key).arg("last_event")).await?;
            Ok::<_, StoreError>((info, EventNumber(last.unwrap_or_default())))
        };
        match looked.await {
            Ok((info, last)) => self.health.on_reconnected(&info, last),
            Err(error) => {
                tracing::debug!(%error, "the last event is not known");
                return false;
            }
        }
        true
    }
}

fn hint_from(line: &str) -> Option<Hint> {
    let (kind, rest) = line.split_at_checked(1)?;
    Some(match kind {
        "r" => Hint::Ready { containers: rest.parse().ok()? },
        "o" => Hint::Outbox(rest.split(',').filter_map(|name| WorkerId::new(name).ok()).collect()),
        "e" => Hint::Events(EventNumber(rest.parse().ok()?)),
        "d" => Hint::Due(Timestamp(rest.parse().ok()?)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_read_back_and_what_is_none_is_dropped() {
        assert_eq!(hint_from("r12"), Some(Hint::Ready { containers: 12 }));
        let workers = ["a", "b.c"].map(|name| WorkerId::new(name).unwrap());
        assert_eq!(hint_from("oa,b.c"), Some(Hint::Outbox(workers.to_vec())));
        assert_eq!(hint_from("e7"), Some(Hint::Events(EventNumber(7))));
        assert_eq!(hint_from("d99"), Some(Hint::Due(Timestamp(99))));
        for nothing in ["", "r", "x1", "e-1", "ä"] {
            assert_eq!(hint_from(nothing), None, "{nothing:?}");
        }
    }
}
