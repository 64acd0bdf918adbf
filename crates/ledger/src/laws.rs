//! The laws, each a function that names what breaks it. Run after every step in property
//! tests, and in production by `audit`. They count from the records, not from the counters.

use std::collections::{BTreeMap, BTreeSet};

use volley_model::{ContainerId, ContainerState, Free, Stage, WorkerStatus};

use crate::Audit;
use crate::ledger::Ledger;
use crate::state::State;

impl Ledger {
    /// Counts of all states from the records, and what breaks a law.
    #[must_use]
    pub fn audit(&self) -> Audit {
        let mut audit = Audit {
            accepted: self.counters.accepted,
            finished: self.counters.finished,
            pruned: self.counters.pruned,
            queued: self.groups.values().map(|g| g.in_ranges()).sum(),
            ..Audit::default()
        };
        for container in self.live.values() {
            *match container.state_name() {
                ContainerState::Queued => &mut audit.queued,
                ContainerState::Claimed => &mut audit.claimed,
                ContainerState::Assigned => &mut audit.assigned,
                ContainerState::Starting => &mut audit.starting,
                ContainerState::Running => &mut audit.running,
                ContainerState::Stopping => &mut audit.stopping,
                ContainerState::Finished => &mut audit.finished,
            } += 1;
        }
        let mut violations = Vec::new();
        self.check_capacity(&mut violations);
        self.check_accounting(&audit, &mut violations);
        self.check_finished(&mut violations);
        self.check_keys(&mut violations);
        self.check_attempts(&mut violations);
        self.check_waiting(&mut violations);
        self.check_tenants(&mut violations);
        self.check_tokens(&mut violations);
        self.check_feed(&mut violations);
        self.check_machines(&mut violations);
        violations.truncate(VIOLATIONS_MAX);
        audit.violations = violations;
        audit
    }

    /// Laws 1, 2 and 9: what is free is the capacity less the live attempts, never below nothing.
    pub fn check_capacity(&self, violations: &mut Vec<String>) {
        for (id, entry) in &self.workers {
            let mut free: Free = entry.worker.capacity.all_free();
            for container in &entry.attempts {
                let Some((spec, bound)) = self.live.get(container).and_then(|c| Some((&c.spec, c.bound()?))) else {
                    violations.push(format!("law 9: worker {id} reserves for {container}, which is not bound"));
                    continue;
                };
                if !free.reserve(&spec.resources, &bound.gpus) {
                    violations.push(format!("law 1: the containers of worker {id} exceed its capacity at {container}"));
                }
            }
            if free != entry.free {
                violations
                    .push(format!("law 2: worker {id} says {:?} is free, its containers leave {free:?}", entry.free));
            }
        }
    }

    /// Law 3: every accepted container is in exactly one state.
    pub fn check_accounting(&self, audit: &Audit, violations: &mut Vec<String>) {
        let live = audit.queued + audit.claimed + audit.assigned + audit.starting + audit.running + audit.stopping;
        let sum = live + audit.finished + audit.pruned;
        if sum != audit.accepted {
            violations.push(format!("law 3: {} accepted, {sum} accounted for", audit.accepted));
        }
        let mut of_group: BTreeMap<_, u64> = BTreeMap::new();
        for id in self.live.keys() {
            *of_group.entry(id.group).or_default() += 1;
            let run = self.groups.get(&id.group).and_then(|g| Some(&g.runs[g.run_of(id.index)?]));
            if run.is_none_or(|run| id.index >= run.next) {
                violations.push(format!("law 3: {id} is live, and in a range or in no group"));
            }
        }
        for group in self.groups.values() {
            let live = of_group.get(&group.id).copied().unwrap_or(0);
            let sum = group.in_ranges() + live + u64::from(group.finished);
            if sum != u64::from(group.count) {
                violations
                    .push(format!("law 3: group {} has {} containers, {sum} accounted for", group.id, group.count));
            }
        }
    }

    /// Law 4: a finished container is finished once and is not live.
    pub fn check_finished(&self, violations: &mut Vec<String>) {
        if self.finished.len() as u64 != self.counters.finished {
            violations.push(format!("law 4: {} finished, {} listed", self.counters.finished, self.finished.len()));
        }
        let mut seen = BTreeSet::new();
        for (_, id) in &self.finished {
            if !seen.insert(*id) {
                violations.push(format!("law 4: {id} finished twice"));
            }
            if self.live.contains_key(id) {
                violations.push(format!("law 4: {id} is finished and live"));
            }
        }
        for group in self.groups.values() {
            let range = ContainerId { group: group.id, index: 0 }..=ContainerId { group: group.id, index: u32::MAX };
            let listed = seen.range(range).count() as u32;
            if listed + group.pruned != group.finished {
                let (finished, pruned) = (group.finished, group.pruned);
                violations
                    .push(format!("law 4: group {}: {finished} finished, {listed} listed, {pruned} pruned", group.id));
            }
        }
    }

    /// Law 6: a key's group is the one it made.
    pub fn check_keys(&self, violations: &mut Vec<String>) {
        for ((tenant, key), stored) in &self.keys {
            let group = self.groups.get(&stored.group);
            if group.is_some_and(|g| g.count != stored.count || g.tenant != *tenant) {
                violations.push(format!("law 6: key '{key}' of {tenant} names a group it did not make"));
            }
            if !self.keys_until.contains(&(stored.until, tenant.clone(), key.clone())) {
                violations.push(format!("law 6: key '{key}' of {tenant} never ends"));
            }
        }
    }

    /// Law 8: one authoritative attempt, on one worker, which knows of it; messages about it are in that worker's outbox.
    pub fn check_attempts(&self, violations: &mut Vec<String>) {
        let mut bound_count = 0;
        for (id, container) in &self.live {
            let Some(bound) = container.bound() else { continue };
            bound_count += 1;
            let Some(worker) = self.workers.get(&bound.worker) else {
                violations.push(format!("law 8: {id} runs on {}, which is not known", bound.worker));
                continue;
            };
            if !worker.attempts.contains(id) {
                violations.push(format!("law 8: {id} runs on {}, which does not know it", bound.worker));
            }
            if bound.attempt.number != container.attempts {
                violations.push(format!("law 8: {id} made {} attempts and runs another", container.attempts));
            }
            let posted = bound.outbox.is_some_and(|number| worker.outbox.get(&number) == Some(id));
            let needed = bound.stop.is_some() || bound.phase == crate::StoredPhase::Assigned;
            if needed != posted {
                violations.push(format!("law 11: {id} and the outbox of {} disagree", bound.worker));
            }
        }
        let known: usize = self.workers.values().map(|w| w.attempts.len()).sum();
        if known != bound_count {
            violations.push(format!("law 8: {bound_count} containers are bound, workers know {known}"));
        }
    }

    /// Law 11: whatever waits is where something will look at it.
    pub fn check_waiting(&self, violations: &mut Vec<String>) {
        violations.extend(self.queues.violations());
        let mut delayed = 0;
        for (id, container) in &self.live {
            match &container.state {
                State::Queued { ready_at } => {
                    let queue = self.queues.shapes.get(&container.shape);
                    let queued = queue.is_some_and(|q| q.entries.contains_key(&(container.score, id.index)));
                    let later = self.delayed.contains(&(*ready_at, *id));
                    delayed += usize::from(later);
                    if queued == later {
                        violations.push(format!("law 11: {id} is queued and nothing (or too much) will look at it"));
                    }
                }
                State::Claimed { session, .. } => {
                    if !self.sessions.get(session).is_some_and(|s| s.claimed.contains(id)) {
                        violations.push(format!("law 11: {id} is claimed by a session that does not know it"));
                    }
                }
                State::Bound(_) => {}
            }
        }
        if delayed != self.delayed.len() {
            violations.push("law 11: the list of the delayed holds one that is not".to_owned());
        }
        for (id, worker) in &self.workers {
            if !self.leases.contains(&(worker.lease_until, id.clone())) {
                violations.push(format!("law 11: the lease of worker {id} never ends"));
            }
        }
    }

    /// Law 12: a container's shape is its tenant's.
    pub fn check_tenants(&self, violations: &mut Vec<String>) {
        for (id, container) in &self.live {
            let shape = self.queues.shapes.get(&container.shape).map(|q| &q.shape.tenant);
            if shape != self.groups.get(&id.group).map(|g| &g.tenant) {
                violations.push(format!("law 12: {id} waits among another tenant's containers"));
            }
        }
        let mut waiting: BTreeMap<_, u64> = BTreeMap::new();
        for group in self.groups.values().filter(|group| group.in_ranges() > 0) {
            *waiting.entry(&group.tenant).or_default() += group.in_ranges();
        }
        for (id, _) in self.live.iter().filter(|(_, container)| container.bound().is_none()) {
            let group = self.groups.get(&id.group);
            *group.map_or(&mut 0, |group| waiting.entry(&group.tenant).or_default()) += 1;
        }
        let counted = self.tenants.iter().map(|(name, entry)| (name, entry.waiting)).filter(|(_, count)| *count > 0);
        if !counted.clone().eq(waiting.iter().map(|(name, count)| (*name, *count))) {
            let counted: Vec<_> = counted.collect();
            violations.push(format!("law 12: the tenants' backlogs are {waiting:?}, counted were {counted:?}"));
        }
        for (name, entry) in &self.tenants {
            let rate = entry.limits.as_ref().and_then(|limits| limits.rate);
            if entry.bucket.is_some() != rate.is_some() || entry.is_nothing() {
                violations.push(format!("law 12: tenant {name} is kept with the wrong limits"));
            }
        }
    }

    /// Law 12: a secret is one token's, and every token that ends is forgotten some time.
    pub fn check_tokens(&self, violations: &mut Vec<String>) {
        for (id, token) in &self.tokens {
            if token.id != *id || self.tokens_by_hash.get(&token.hash) != Some(id) {
                violations.push(format!("law 12: the secret of token {id} is not found"));
            }
            let until = token.ends_at().map(|end| end.after(self.options.token_record_age_max));
            if until.is_some_and(|until| !self.tokens_until.contains(&(until, *id))) {
                violations.push(format!("law 12: token {id} is never forgotten"));
            }
        }
        let ending = self.tokens.values().filter(|token| token.ends_at().is_some()).count();
        if (self.tokens_by_hash.len(), self.tokens_until.len()) != (self.tokens.len(), ending) {
            violations.push("law 12: the lists of the tokens hold one that is not".to_owned());
        }
    }

    /// A bought machine is on its way, or its worker registered, or it is being destroyed; and no pool has more than it may.
    pub fn check_machines(&self, violations: &mut Vec<String>) {
        for (id, record) in &self.machines {
            let worker = self.workers.get(id);
            if worker.is_some_and(|worker| worker.worker.pool != record.pool) {
                violations.push(format!("machine {id} is of pool {} and its worker is not", record.pool));
            }
            if record.stage.is_in_flight() && worker.is_some() {
                violations.push(format!("machine {id} is on its way and has registered"));
            }
            if matches!(record.stage, Stage::Destroying { .. })
                && worker.is_some_and(|w| w.status() == WorkerStatus::Ready)
            {
                violations.push(format!("machine {id} is to be destroyed and takes new work"));
            }
        }
        for (name, pool) in &self.pools {
            let of_pool = self.machines.values().filter(|record| record.pool == *name);
            // A limit that was lowered binds what is bought after.
            let bought_under_it = of_pool.clone().any(|record| record.pool_version == pool.version);
            let (machines, in_flight) = self.machines_of(name);
            match &pool.elastic {
                None if machines > 0 => {
                    violations.push(format!("pool {name} has {machines} machines and no provisioner"))
                }
                Some(elastic) if bought_under_it && (machines > elastic.max || in_flight > elastic.in_flight_max) => {
                    let (max, limit) = (elastic.max, elastic.in_flight_max);
                    violations.push(format!(
                        "pool {name} has {machines} machines of {max}, {in_flight} on their way of {limit}"
                    ));
                }
                _ => {}
            }
        }
        for record in self.machines.values().filter(|record| !self.pools.contains_key(&record.pool)) {
            violations.push(format!("machine {} is of pool {}, which is not there", record.worker, record.pool));
        }
    }

    /// The feed has an entry for every worker and pool.
    pub fn check_feed(&self, violations: &mut Vec<String>) {
        use crate::feed::FeedKey;
        let workers = self.workers.keys().map(|id| FeedKey::Worker(id.clone()));
        let pools = self.pools.keys().map(|name| FeedKey::Pool(name.clone()));
        for key in workers.chain(pools).filter(|key| !self.feed.contains(key)) {
            violations.push(format!("change feed: {key:?} is missing"));
        }
        let (entries, tombstones) = self.feed.sizes();
        let records = self.workers.len() + self.pools.len() + self.queues.shapes.len();
        if entries > records + tombstones {
            violations
                .push(format!("change feed: {entries} entries for {records} records and {tombstones} tombstones"));
        }
    }
}

/// Most violations listed by one audit: the first ones tell.
const VIOLATIONS_MAX: usize = 100;
