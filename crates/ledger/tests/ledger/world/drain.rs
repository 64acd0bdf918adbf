//! The end of all faults (law 11): one server that acts on hints and due times alone, first fit,
//! and workers that do what they are told. All that can run ends, in a bounded number of rounds;
//! what cannot waits with a reason and costs nothing.

use std::collections::BTreeSet;

use volley_ledger::{
    Commit, Found, Heartbeat, Hint, InventoryItem, ListQuery, Order, Progress, Schedulable, SetSchedulable, Sweep,
    TakeFrom, WorkerMessage, WorkerRecord,
};
use volley_model::{
    BlockedMark, ContainerId, ContainerState, DeliveryNumber, Epoch, Nonce, Outcome, SessionId, Spec, Timestamp,
    WaitReason, WorkerId, WorkerStatus,
};

use crate::mirror::full;
use crate::steps::Number;
use crate::world::World;

/// Turns, takes and sweeps in which a few dozen containers must be through: each retries at most a few times.
const ROUNDS_MAX: u32 = 3_000;

/// What a server was told and has not seen to.
#[derive(Debug, Default)]
struct Heed {
    ready: bool,
    outboxes: BTreeSet<WorkerId>,
    due: Option<Timestamp>,
    turns: u32,
}

struct Stream {
    worker: WorkerId,
    epoch: Epoch,
    stream: Nonce,
}

impl World {
    /// After any sequence: everything drains, and then it is quiet.
    pub fn drain(&mut self) {
        // A new server; the ones before are silent, with whatever they claimed.
        self.on_open(1);
        let session = *self.sessions.last().expect("opened now");
        let streams = self.everyone_back(session);
        // A server that starts looks at everything once; from there on it goes by what it is told.
        let mut heed = Heed { ready: true, ..Heed::default() };
        heed.outboxes.extend(streams.iter().map(|stream| stream.worker.clone()));
        let mut rounds = 0;
        let mut quiet = 0;
        while quiet < 400 {
            rounds += 1;
            assert!(rounds < ROUNDS_MAX, "law 11: no end after {rounds} rounds: {:?}", self.cell.ledger.audit());
            if std::mem::take(&mut heed.ready) {
                self.drain_turn(session, &mut heed);
                quiet = 0;
            } else if !heed.outboxes.is_empty() {
                self.obey(session, &streams, &mut heed);
                quiet = 0;
            } else {
                let changes = self.tick(session, &streams, &mut heed);
                quiet = if changes { 0 } else { quiet + 1 };
            }
            self.cell.check();
        }
        self.check_drained();
    }

    /// Every worker of the list attaches with all it holds, is open for work, and ends what it ran.
    fn everyone_back(&mut self, session: SessionId) -> Vec<Stream> {
        let mut streams = Vec::new();
        for record in self.cell.ledger.workers() {
            let worker = (*record.view.worker).clone();
            let name = worker.id.clone();
            let live = self.live_attempts().into_iter().filter(|(of, ..)| *of == name);
            let held: Vec<_> = live.map(|(_, container, attempt)| (container, attempt)).collect();
            let item = |(container, attempt): &(ContainerId, _)| InventoryItem {
                container: *container,
                attempt: *attempt,
                progress: Progress::Ended(Outcome::Exited { code: 0, signal: None }),
            };
            self.attach(session, worker, Some(record.view.epoch), held.iter().map(item).collect(), false);
            let (epoch, stream, _) = *self.epochs[&name].last().expect("attached now");
            // A machine that is given up stays closed.
            let _ = self.call(SetSchedulable { worker: name.clone(), to: Schedulable::Open });
            streams.push(Stream { worker: name, epoch, stream });
        }
        streams
    }

    fn told(&mut self, heed: &mut Heed) {
        for hint in &self.cell.last.hints {
            match hint {
                Hint::Ready { .. } => heed.ready = true,
                Hint::Outbox(workers) => heed.outboxes.extend(workers.iter().cloned()),
                Hint::Due(at) => heed.due = Some(heed.due.map_or(*at, |due| due.min(*at))),
                Hint::Events(_) => {}
            }
        }
    }

    fn drain_turn(&mut self, session: SessionId, heed: &mut Heed) {
        heed.turns += 1;
        let claim = self.claim_now(session, 10);
        self.told(heed);
        heed.ready |= claim.ready > 0 || claim.fleet.more;
        let mut views = full(self.ledger()).workers;
        let mut op = Commit { session, number: self.commit_number(session, Number::Next), ..Commit::default() };
        let mut blocked = BTreeSet::new();
        for claimed in &claim.containers {
            let (spec, _) = self.spec_of(claimed.container).expect("it was claimed just now");
            if let Some(placement) = self.first_fit(claimed, &spec, &mut views) {
                op.placements.push(placement);
            } else if claimed.fail_if_unplaceable && !self.could_run(&spec) {
                op.unplaceable.push((claimed.container, "no worker has that much".to_owned()));
            } else {
                op.returned.push(claimed.container);
                if blocked.insert(claimed.shape) {
                    let mark = BlockedMark {
                        shape: claimed.shape,
                        at: claim.fleet.version,
                        reasons: vec![WaitReason::Unavailable { workers: views.len() as u32 }],
                    };
                    op.blocked.push(mark);
                }
            }
        }
        // To look again is to let their heads be claimed: what still does not fit is blocked at a newer version.
        op.unblocked = claim.recheck;
        let placements = op.placements.clone();
        let reply = self.call(op).expect("the session is alive");
        self.told(heed);
        for (placement, verdict) in placements.iter().zip(&reply.placements) {
            let attempt = verdict.unwrap_or_else(|refusal| panic!("{refusal}: {placement:?} fits"));
            self.attempts.push((placement.worker.clone(), placement.container, attempt));
        }
    }

    /// Workers are handed what is in their outboxes, and do it.
    fn obey(&mut self, session: SessionId, streams: &[Stream], heed: &mut Heed) {
        let told = std::mem::take(&mut heed.outboxes);
        for stream in streams.iter().filter(|stream| told.contains(&stream.worker)) {
            let from = TakeFrom { worker: stream.worker.clone(), stream: stream.stream, after: DeliveryNumber(0) };
            let deliveries = self.cell.ledger.take(&[from]).remove(0).deliveries;
            if deliveries.is_empty() {
                continue;
            }
            let mut messages = Vec::new();
            for delivery in deliveries {
                let (container, attempt, said) = match delivery.order {
                    Order::Start { container, attempt, .. } => {
                        let done = Outcome::Exited { code: 0, signal: None };
                        (container, attempt, vec![Progress::Accepted, Progress::Running, Progress::Ended(done)])
                    }
                    Order::Stop { container, attempt, .. } => {
                        let killed = Outcome::Exited { code: 137, signal: Some(9) };
                        (container, attempt, vec![Progress::Ended(killed)])
                    }
                };
                let (worker, epoch) = (stream.worker.clone(), stream.epoch);
                messages.extend(said.into_iter().map(|progress| WorkerMessage {
                    worker: worker.clone(),
                    epoch,
                    container,
                    attempt,
                    progress,
                }));
            }
            self.report(session, messages);
            self.told(heed);
            // A take is bounded: the rest is asked for in the next round.
            heed.outboxes.insert(stream.worker.clone());
        }
    }

    /// Time goes on to what is due; everyone renews. Whether a container or worker changed by it.
    fn tick(&mut self, session: SessionId, streams: &[Stream], heed: &mut Heed) -> bool {
        let now = self.cell.now;
        let due = heed.due.take().unwrap_or(now).max(now.after(volley_model::Millis(1)));
        self.cell.now = due.min(now.after(volley_model::Millis(5_000)));
        let workers = streams.iter().map(|s| (s.worker.clone(), s.stream, s.epoch)).collect();
        let beat = self.call(Heartbeat { session, workers });
        assert!(beat.session_alive && beat.workers.iter().all(|alive| *alive), "everyone is well: {beat:?}");
        self.told(heed);
        let reply = self.call(Sweep { session: None, items_max: 20 });
        self.told(heed);
        heed.due = reply.due;
        !self.cell.last.events.is_empty() || reply.sessions_ended > 0 || reply.more
    }

    /// Whether any worker could run it, were it empty.
    fn could_run(&self, spec: &Spec) -> bool {
        let open = |record: &&WorkerRecord| record.view.status == WorkerStatus::Ready;
        self.cell.ledger.workers().iter().filter(open).any(|record| {
            let capacity = &record.view.worker.capacity;
            let mut free = capacity.all_free();
            let gpus = match &spec.resources.gpu {
                Some(gpu) => capacity.choose_gpus(&free, gpu),
                None => Some(Vec::new()),
            };
            gpus.is_some_and(|gpus| free.reserve(&spec.resources, &gpus))
        })
    }

    fn check_drained(&self) {
        let audit = self.cell.ledger.audit();
        let live = (audit.claimed, audit.assigned, audit.starting, audit.running, audit.stopping);
        assert_eq!(live, (0, 0, 0, 0, 0), "law 11: all that ran has ended");
        let states = [ContainerState::Queued].to_vec();
        let waiting = self.cell.ledger.list(&ListQuery { states, max: 1_000, ..ListQuery::default() });
        assert_eq!(waiting.containers.len() as u64, audit.queued);
        for found in waiting.containers {
            let Found::Live(record) = found else { panic!("a queued container is live") };
            assert!(!self.could_run(&record.spec), "law 11: {} would fit on an empty fleet", record.id);
            let reasons = record.waiting.expect("it waits").reasons;
            let said = !reasons.is_empty() && !reasons.contains(&WaitReason::NotLookedAt);
            assert!(said, "law 11: {} waits for {reasons:?}", record.id);
        }
    }
}
