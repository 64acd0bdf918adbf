//! What servers count, summed over all of them, between two looks. Knows nothing of how it is
//! asked for.

use serde_json::Value;

use super::figures::{BatchSize, TurnFigures};
use crate::Spread;

/// What the servers count, between two looks.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) batches: u64,
    pub(super) claims: u64,
    pub(super) claims_idle: u64,
    pub(super) commits: u64,
    pub(super) refused: u64,
    pub(super) reloads: u64,
    pub(super) store_calls: u64,
    pub(super) transactions: u64,
    pub(super) placed: u64,
    pub(super) sizes: Vec<BatchSize>,
    /// The last turns of each server that wrote something.
    recent: Vec<ServerTurns>,
}

#[derive(Debug, Clone, Default)]
struct ServerTurns {
    commits: u64,
    recent: Vec<TurnTime>,
}

/// In milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct TurnTime {
    containers: f64,
    claim: f64,
    plan: f64,
    commit: f64,
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_default()
}

fn turns_of(stats: &Value) -> ServerTurns {
    let ms = |turn: &Value, field: &str| number(turn, field) as f64 / 1e3;
    let turn = |turn: &Value| TurnTime {
        containers: number(turn, "containers") as f64,
        claim: ms(turn, "claim_us"),
        plan: ms(turn, "plan_us"),
        commit: ms(turn, "commit_us"),
    };
    let recent = stats["turns"]["recent"].as_array().into_iter().flatten().map(turn).collect();
    ServerTurns { commits: number(&stats["turns"], "commits"), recent }
}

impl Counts {
    /// Of the answers of all servers.
    pub(super) fn of(stats: &[Value]) -> Self {
        let mut counts = Self::default();
        for stats in stats {
            counts.add(stats);
        }
        counts
    }

    fn add(&mut self, stats: &Value) {
        let (turns, store) = (&stats["turns"], &stats["store"]);
        self.batches += number(turns, "batches");
        self.placed += number(turns, "placed");
        self.claims += number(turns, "claims");
        self.claims_idle += number(turns, "claims_idle");
        self.commits += number(turns, "commits");
        self.refused += number(turns, "refused");
        self.reloads += number(turns, "reloads");
        self.store_calls += number(store, "operations") + number(store, "reads");
        self.transactions += number(store, "transactions");
        for size in turns["sizes"].as_array().into_iter().flatten() {
            let (up_to, batches) = (size["up_to"].as_u64(), number(size, "batches"));
            match self.sizes.iter_mut().find(|known| known.up_to == up_to) {
                Some(known) => known.batches += batches,
                None => self.sizes.push(BatchSize { up_to, batches }),
            }
        }
        self.recent.push(turns_of(stats));
    }

    pub(super) fn since(mut self, before: &Self) -> Self {
        self.batches -= before.batches;
        self.placed -= before.placed;
        self.claims -= before.claims;
        self.claims_idle -= before.claims_idle;
        self.commits -= before.commits;
        self.refused -= before.refused;
        self.reloads -= before.reloads;
        self.store_calls -= before.store_calls;
        self.transactions -= before.transactions;
        for size in &mut self.sizes {
            let then = before.sizes.iter().find(|then| then.up_to == size.up_to);
            size.batches -= then.map_or(0, |then| then.batches);
        }
        self.sizes.retain(|size| size.batches > 0);
        for (server, then) in self.recent.iter_mut().zip(&before.recent) {
            let new = (server.commits - then.commits) as usize;
            server.recent.drain(..server.recent.len().saturating_sub(new));
        }
        self
    }

    /// Of the turns that servers remember.
    pub(super) fn turns(&self) -> impl Iterator<Item = TurnTime> {
        self.recent.iter().flat_map(|server| server.recent.iter().copied())
    }
}

/// Medians over turns; `None` when there were none.
pub(super) fn turn_figures(turns: &[TurnTime]) -> Option<TurnFigures> {
    if turns.is_empty() {
        return None;
    }
    let median = |figure: fn(&TurnTime) -> f64| {
        super::clock::rounded(Spread::of(&turns.iter().map(figure).collect::<Vec<_>>()).median)
    };
    Some(TurnFigures {
        containers: median(|turn| turn.containers),
        claim_ms: median(|turn| turn.claim),
        plan_ms: median(|turn| turn.plan),
        commit_ms: median(|turn| turn.commit),
        claim_and_commit_ms: median(|turn| turn.claim + turn.commit),
        turns: turns.len(),
    })
}
