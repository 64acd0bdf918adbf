//! Commits of a random sequence: right and wrong placements, and what each must be answered.

use std::collections::{BTreeMap, BTreeSet};

use volley_ledger::{Commit, Found};
use volley_model::{
    BlockedMark, Claimed, ContainerId, ContainerState, FleetVersion, GPU_WHOLE, GpuGrant, HoldRequest, Nonce,
    Placement, SessionId, ShapeHash, Spec, WaitReason, WorkerId, WorkerStatus, WorkerView,
};

use crate::cell::secs;
use crate::disk::comparable;
use crate::mirror::full;
use crate::steps::{Marks, Mistake, Number, Pick};
use crate::world::World;
use crate::world::things::worker;

impl World {
    pub(super) fn on_commit(&mut self, session: u8, number: Number, picks: &[Pick], marks: &Marks) -> String {
        let Some(session) = self.session(session) else { return String::new() };
        let last = self.servers[&session].last_commit.clone();
        if let (Number::Last, Some(op)) = (number, last) {
            let before = comparable(self.ledger().stored());
            let reply = self.call(op);
            assert_eq!(before, comparable(self.ledger().stored()), "law 7: a repeated commit changes nothing");
            return format!("{reply:?}");
        }
        let views: BTreeMap<WorkerId, WorkerView> =
            self.ledger().workers().into_iter().map(|w| (w.view.worker.id.clone(), w.view)).collect();
        let placements: Vec<Placement> = picks.iter().filter_map(|pick| self.placement(pick, &views)).collect();
        let expected = self.expect(session, &placements, views);
        let op = Commit {
            session,
            number: self.commit_number(session, number),
            placements: placements.clone(),
            blocked: marks.blocked.iter().filter_map(|(shape, at)| self.mark(*shape, *at)).collect(),
            unblocked: marks.unblocked.iter().filter_map(|shape| self.shape(*shape)).collect(),
            returned: marks.returned.iter().filter_map(|which| Some(self.claimed(*which)?.container)).collect(),
            unplaceable: marks
                .unplaceable
                .iter()
                .filter_map(|which| Some((self.claimed(*which)?.container, "no pool".to_owned())))
                .collect(),
            holds: marks
                .holds
                .iter()
                .filter_map(|(shape, on)| {
                    Some(HoldRequest { shape: self.shape(*shape)?, worker: worker(*on, 0).id, term: secs(9) })
                })
                .collect(),
        };
        let reply = self.call(op.clone());
        let Ok(committed) = &reply else { return format!("{reply:?}") };
        self.servers.get_mut(&session).expect("every session has a server").last_commit = Some(op);
        if !matches!(number, Number::Next) {
            // The number of an earlier one: its reply, or a refusal.
            return format!("{reply:?}");
        }
        if self.ledger().workers().iter().any(|w| w.view.hold.is_some()) {
            self.count("hold");
        }
        let verdicts: Vec<bool> = committed.placements.iter().map(Result::is_ok).collect();
        assert_eq!(verdicts, expected, "{placements:#?} {:?}", committed.placements);
        for (placement, verdict) in placements.iter().zip(&committed.placements) {
            match verdict {
                Ok(attempt) => {
                    assert_eq!(attempt.nonce, placement.nonce);
                    self.attempts.push((placement.worker.clone(), placement.container, *attempt));
                }
                Err(refusal) => self.count(format!("{refusal:?}")),
            }
        }
        format!("{committed:?}")
    }

    /// A server that does as it should: all it claims goes to the first worker that has room, or back.
    pub(super) fn on_turn(&mut self, max: u8) -> String {
        let session = self.live_session();
        let claim = self.claim_now(session, max);
        let mut views = full(self.ledger()).workers;
        let mut op = Commit { session, number: self.commit_number(session, Number::Next), ..Commit::default() };
        let mut blocked = BTreeSet::new();
        for claimed in &claim.containers {
            let (spec, _) = self.spec_of(claimed.container).expect("it was claimed just now");
            match self.first_fit(claimed, &spec, &mut views) {
                Some(placement) => op.placements.push(placement),
                None => {
                    op.returned.push(claimed.container);
                    if blocked.insert(claimed.shape) {
                        op.blocked.push(BlockedMark {
                            shape: claimed.shape,
                            at: claim.fleet.version,
                            reasons: vec![WaitReason::Unavailable { workers: 1 }],
                        });
                    }
                }
            }
        }
        op.unblocked = claim.recheck;
        let reply = self.call(op.clone()).expect("the session is alive");
        self.servers.get_mut(&session).expect("every session has a server").last_commit = Some(op.clone());
        for (placement, verdict) in op.placements.iter().zip(&reply.placements) {
            let attempt = verdict.unwrap_or_else(|refusal| panic!("{refusal}: {placement:?} fits"));
            self.attempts.push((placement.worker.clone(), placement.container, attempt));
        }
        format!("{reply:?}")
    }

    pub(super) fn first_fit(
        &mut self,
        claimed: &Claimed,
        spec: &Spec,
        views: &mut BTreeMap<WorkerId, WorkerView>,
    ) -> Option<Placement> {
        let now = self.ledger().counters().now;
        for view in views.values_mut().filter(|view| view.status == WorkerStatus::Ready) {
            let hold = view.hold.as_ref().filter(|hold| hold.until > now && hold.shape != claimed.shape);
            let gpus = match &spec.resources.gpu {
                Some(gpu) => view.worker.capacity.choose_gpus(&view.free, gpu),
                None => Some(Vec::new()),
            };
            let Some(gpus) = gpus.filter(|_| hold.is_none_or(|hold| claimed.score < hold.score)) else { continue };
            if view.free.reserve(&spec.resources, &gpus) {
                return Some(Placement {
                    container: claimed.container,
                    claim: claimed.claim,
                    worker: view.worker.id.clone(),
                    epoch: view.epoch,
                    revision: view.revision,
                    gpus,
                    nonce: self.nonce(),
                });
            }
        }
        None
    }

    /// One of the claims there ever were, by how long ago.
    fn claimed(&self, back: u8) -> Option<&Claimed> {
        let newest = self.claims.len().checked_sub(1)?;
        self.claims.get(newest - usize::from(back) % (newest + 1))
    }

    fn shape(&self, which: u8) -> Option<ShapeHash> {
        self.shapes.iter().nth(usize::from(which) % self.shapes.len().max(1)).copied()
    }

    fn mark(&self, shape: u8, at: u8) -> Option<BlockedMark> {
        let version = self.ledger().counters().fleet_version;
        let at = match at {
            0 => FleetVersion(version.0.saturating_sub(3)),
            1 => FleetVersion(u64::MAX),
            _ => version,
        };
        Some(BlockedMark { shape: self.shape(shape)?, at, reasons: vec![WaitReason::NoWorkers] })
    }

    pub(super) fn spec_of(&self, id: ContainerId) -> Option<(Spec, ContainerState)> {
        match self.ledger().container(id, None)? {
            Found::Live(record) => Some(((*record.spec).clone(), record.state)),
            Found::Finished(_) => None,
        }
    }

    fn placement(&mut self, pick: &Pick, views: &BTreeMap<WorkerId, WorkerView>) -> Option<Placement> {
        let claimed = self.claimed(pick.claimed)?.clone();
        let view = views.values().nth(usize::from(pick.worker) % views.len().max(1))?;
        let gpu = self.spec_of(claimed.container).and_then(|(spec, _)| spec.resources.gpu);
        let gpus = gpu.and_then(|gpu| view.worker.capacity.choose_gpus(&view.free, &gpu)).unwrap_or_default();
        let mut placement = Placement {
            container: claimed.container,
            claim: claimed.claim,
            worker: view.worker.id.clone(),
            epoch: view.epoch,
            revision: view.revision,
            gpus,
            nonce: self.nonce(),
        };
        match pick.mistake {
            Mistake::None => {}
            Mistake::Claim => placement.claim.0 += 1,
            Mistake::Container => placement.container.index += 1000,
            Mistake::Epoch => placement.epoch.nonce = Nonce(0),
            Mistake::Revision => placement.revision.0 += 1,
            Mistake::Gpus => placement.gpus.push(GpuGrant { device: 9, milli: GPU_WHOLE }),
        }
        Some(placement)
    }

    /// Which placements are right, worked out from reads, in order, on a copy of what is free.
    fn expect(
        &self,
        session: SessionId,
        placements: &[Placement],
        mut views: BTreeMap<WorkerId, WorkerView>,
    ) -> Vec<bool> {
        let now = self.cell.now.max(self.ledger().counters().now);
        let mut placed = BTreeSet::new();
        let mut verdicts = Vec::new();
        for placement in placements {
            let claimed = self.claims.iter().rev().find(|c| c.container == placement.container);
            let spec = self.spec_of(placement.container).filter(|(_, state)| *state == ContainerState::Claimed);
            let owned = self.owners.get(&placement.container) == Some(&(session, placement.claim));
            let view = views.get_mut(&placement.worker);
            let right = match (claimed, spec, view) {
                (Some(claimed), Some((spec, _)), Some(view)) if owned && !placed.contains(&placement.container) => {
                    let hold = view.hold.as_ref().filter(|hold| hold.until > now && hold.shape != claimed.shape);
                    let ready = view.status == WorkerStatus::Ready
                        && view.epoch == placement.epoch
                        && view.revision == placement.revision
                        && hold.is_none_or(|hold| claimed.score < hold.score);
                    let right = ready && view.free.reserve(&spec.resources, &placement.gpus);
                    if right && view.hold.as_ref().is_some_and(|hold| hold.shape == claimed.shape) {
                        view.hold = None;
                    }
                    right
                }
                _ => false,
            };
            if right {
                placed.insert(placement.container);
            }
            verdicts.push(right);
        }
        verdicts
    }
}
