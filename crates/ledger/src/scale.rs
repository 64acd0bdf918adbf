//! The read that a scale plan starts from: what waits in blocked shapes, what was bought, how pools do.

use std::sync::Arc;

use volley_model::{Demand, MachineWorker, ProvisionedMachine, ScaleState, Score, ShapeHash};

use crate::ledger::Ledger;
use crate::queue::ShapeQueue;

impl Ledger {
    /// All that a scale plan needs beside the fleet, at this instant.
    #[must_use]
    pub fn scale_state(&self) -> ScaleState {
        let worker = |id| {
            let entry = self.workers.get(id)?;
            Some(MachineWorker {
                status: entry.status(),
                containers: entry.attempts.len() as u32,
                idle_since: entry.idle_since,
                quarantined: entry.quarantine.is_some(),
            })
        };
        let machines = self.machines.iter();
        ScaleState {
            now: self.counters.now,
            at: self.counters.fleet_version,
            lead: self.lead.filter(|lead| lead.until > self.counters.now),
            demand: self.demand(),
            machines: machines
                .map(|(id, record)| ProvisionedMachine { record: Arc::clone(record), worker: worker(id) })
                .collect(),
            standings: self.standings.values().cloned().collect(),
        }
    }

    /// What waits in blocked shapes, the best scores first.
    fn demand(&self) -> Vec<Demand> {
        let blocked = self.queues.shapes.iter().filter(|(_, queue)| queue.mark.is_some());
        let mut best: Vec<(Score, ShapeHash, &ShapeQueue)> =
            blocked.filter_map(|(hash, queue)| Some((queue.head()?.0, *hash, queue))).collect();
        best.sort_by_key(|(score, hash, _)| (*score, *hash));
        best.truncate(self.options.demand_shapes_max);
        best.into_iter().filter_map(|(_, hash, queue)| self.demand_of(hash, queue)).collect()
    }

    fn demand_of(&self, hash: ShapeHash, queue: &ShapeQueue) -> Option<Demand> {
        let since = queue.entries.first_key_value()?.1.since();
        let mut runs: Vec<(Score, u64)> = Vec::new();
        let mut left = queue.waiting;
        for ((score, index), entry) in &queue.entries {
            let count = entry.count(*index);
            if let Some((_, sum)) = runs.last_mut().filter(|(last, _)| last == score) {
                *sum += count;
            } else if runs.len() + 1 >= self.options.demand_runs_max {
                // The rest is told in one.
                runs.push((*score, left));
                break;
            } else {
                runs.push((*score, count));
            }
            left -= count;
        }
        Some(Demand { hash, shape: Arc::clone(&queue.shape), since, runs })
    }
}
