//! Submit: accepts a group of containers whole, or gives the one the same client key made before.

use std::collections::BTreeMap;
use std::sync::Arc;

use volley_model::{ArrivalNumber, GroupId, Score, Shape, SpecHashes, Submission};

use crate::effects::Effects;
use crate::ledger::Ledger;
use crate::state::{Group, GroupRun};
use crate::{Change, EventKind, StoredKey, Submit, SubmitRefusal, SubmitReply};

impl Ledger {
    pub(crate) fn submit(&mut self, op: Submit, out: &mut Effects) -> Result<SubmitReply, SubmitRefusal> {
        let submission = op.submission;
        if let Some(key) = &submission.client_key
            && let Some(known) = self.keys.get(&(submission.tenant.clone(), key.clone()))
        {
            if known.body_digest != op.body_digest {
                return Err(SubmitRefusal::KeyReused { group: known.group });
            }
            return Ok(SubmitReply { group: known.group, count: known.count, repeated: true });
        }
        if self.groups.contains_key(&op.group) {
            return Err(SubmitRefusal::IdTaken);
        }
        let count: u32 = submission.runs.iter().map(|run| run.count).sum();
        let (waiting, limit, asked) = (self.waiting(), self.options.backlog_max, u64::from(count));
        if waiting + asked > limit {
            return Err(SubmitRefusal::BacklogFull { waiting, limit, asked });
        }
        self.admit(&submission.tenant, count)?;
        if let Some(key) = &submission.client_key {
            self.remember_key(&submission, key, (op.group, count), op.body_digest, out);
        }
        self.accept(op.group, submission, count, out);
        Ok(SubmitReply { group: op.group, count, repeated: false })
    }

    fn remember_key(
        &mut self,
        submission: &Submission,
        key: &str,
        (group, count): (GroupId, u32),
        body_digest: u128,
        out: &mut Effects,
    ) {
        let until = self.counters.now.after(self.options.key_retention);
        let tenant = submission.tenant.clone();
        let stored = StoredKey { tenant: tenant.clone(), key: key.to_owned(), group, count, body_digest, until };
        self.keys_until.insert((until, tenant.clone(), key.to_owned()));
        self.keys.insert((tenant, key.to_owned()), stored.clone());
        out.change(Change::PutKey(stored));
    }

    fn accept(&mut self, id: GroupId, submission: Submission, count: u32, out: &mut Effects) {
        let arrival = self.counters.next_arrival;
        self.counters.next_arrival = arrival.next();
        let mut runs = Vec::with_capacity(submission.runs.len());
        let mut start = 0;
        let (mut spec_hashes, mut shapes) = (SpecHashes::default(), BTreeMap::new());
        for run in submission.runs {
            let spec_hash = spec_hashes.of(&run.spec);
            // Of equal specs, hash and shape are computed once, for a list may have thousands.
            let (hash, shape) = shapes.entry(spec_hash).or_insert_with(|| {
                let shape = Shape::of(&submission.tenant, &run.spec);
                (shape.hash(), Arc::new(shape))
            });
            let uses = self.specs.entry(spec_hash).or_insert_with(|| (Arc::clone(&run.spec), 0));
            if uses.1 == 0 {
                out.change(Change::PutSpec(spec_hash, Arc::clone(&run.spec)));
            }
            uses.1 += 1;
            let score = score_of(run.spec.priority, arrival);
            self.queues.add_user(*hash, || Arc::clone(shape), 1);
            let spec = Arc::clone(&uses.0);
            runs.push(GroupRun {
                spec_hash,
                spec,
                shape: *hash,
                score,
                start,
                count: run.count,
                next: start,
                mark: start,
            });
            start += run.count;
        }
        let group = Group {
            id,
            arrival,
            tenant: submission.tenant,
            name: submission.name,
            labels: submission.labels,
            submitted_at: self.counters.now,
            runs,
            count,
            finished: 0,
            succeeded: 0,
            pruned: 0,
        };
        out.change(Change::PutGroup(group.stored()));
        self.arrivals.insert(arrival, id);
        self.counters.accepted += u64::from(count);
        self.wait_more(&group.tenant, u64::from(count));
        let kind = EventKind::GroupAccepted { group: id, tenant: group.tenant.clone(), count };
        out.event(&mut self.counters, kind);
        self.groups.insert(id, group);
        self.enqueue_ranges(id, out);
    }
}

/// The place in the one order of all that waits, which is computed here and nowhere else: priority, then arrival.
#[must_use]
pub fn score_of(priority: i8, arrival: ArrivalNumber) -> Score {
    let rank = (i64::from(i8::MAX) - i64::from(priority)) as u64;
    Score((rank << ARRIVAL_BITS) | (arrival.0 & ((1 << ARRIVAL_BITS) - 1)))
}

/// 2^45 submissions: at a million a second, a year; with 8 bits of priority below 2^53.
const ARRIVAL_BITS: u32 = 45;
