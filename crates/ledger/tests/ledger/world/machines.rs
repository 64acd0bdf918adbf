//! Leaders that buy and give up machines, provisioners that answer this or that, and machines that register or do not.

use volley_ledger::{
    ApplyPool, ApplyPoolRefusal, LeadScaling, MachineSaid, NewMachine, NoteMachines, Provision, Retire, ScaleRefusal,
    SetSchedulable,
};
use volley_model::{PoolName, PoolVersion, RetireCause, SessionId, Stage, WorkerId};

use crate::steps::Truth;
use crate::world::World;
use crate::world::things::{elastic, machine_worker, pool_of};

const CAUSES: [RetireCause; 5] =
    [RetireCause::Idle, RetireCause::BootLimit, RetireCause::Lost, RetireCause::Drained, RetireCause::Quarantined];

impl World {
    pub(super) fn on_apply_pool(&mut self, which: u8) -> String {
        let pool = elastic(which);
        let known = self.cell.ledger.pools().into_iter().find(|known| known.name == pool.name);
        let version = known.as_ref().map_or(PoolVersion(0), |known| known.version);
        let expected = match which % 5 {
            0 => Some(version),
            1 => Some(PoolVersion(version.0 + 1)),
            _ => None,
        };
        let same = known.is_some_and(|known| volley_model::Pool { version, ..pool.clone() } == known);
        let reply = self.call(ApplyPool { pool, expected, renew: which.is_multiple_of(4) });
        match &reply {
            Ok(_) => assert!(same || expected.is_none_or(|expected| expected == version), "only what was looked at"),
            Err(ApplyPoolRefusal::Changed { version: now }) => assert_eq!(*now, version),
            Err(ApplyPoolRefusal::HasMachines { machines }) => assert!(*machines > 0),
        }
        self.count_refusal(&reply);
        format!("{reply:?}")
    }

    pub(super) fn on_lead(&mut self, which: u8) -> String {
        let Some(session) = self.session(which) else { return String::new() };
        let before = self.cell.ledger.scale_state().lead;
        let reply = self.call(LeadScaling { session });
        if let Ok(lead) = &reply {
            assert!(before.is_none_or(|before| before.session == session || before.until <= self.cell.now));
            self.terms.push((session, lead.term));
        }
        self.count_refusal(&reply);
        format!("{reply:?}")
    }

    /// Session and term: of the last that led, of one before, or of nobody.
    fn term(&self, truth: Truth) -> Option<(SessionId, u64)> {
        let back = match truth {
            Truth::Right => 1,
            Truth::Older => 2,
            Truth::Absent => return Some((SessionId(0), 1)),
            Truth::Forged => return self.terms.last().map(|(session, term)| (*session, term + 1)),
        };
        self.terms.len().checked_sub(back).map(|at| self.terms[at])
    }

    /// An answer to a leader means that it led.
    fn check_led<T>(&mut self, who: (SessionId, u64), reply: &Result<T, ScaleRefusal>) {
        let lead = self.cell.ledger.scale_state().lead.map(|lead| (lead.session, lead.term));
        assert_eq!(reply.is_ok(), lead == Some(who), "only the leader of the present term is answered");
    }

    pub(super) fn on_provision(&mut self, truth: Truth, machines: &[(u8, u8)]) -> String {
        let Some((session, term)) = self.term(truth) else { return String::new() };
        let pools = self.cell.ledger.pools();
        let mut new = Vec::new();
        for (name, id) in machines {
            let pool = pool_of(*name);
            let pool_version = pools.iter().find(|known| known.name == pool).map_or(PoolVersion(0), |p| p.version);
            // Now and then one that was bought before, or that is a worker's.
            let worker = match id {
                0..3 => self.machine(*id).unwrap_or_else(|| machine_id(&pool, u64::from(*id))),
                3 => crate::world::things::worker(*id, 0).id,
                _ => machine_id(&pool, self.nonce().0),
            };
            new.push(NewMachine { worker, pool, pool_version });
        }
        let reply = self.call(Provision { session, term, machines: new.clone() });
        self.check_led((session, term), &reply);
        for (machine, verdict) in new.iter().zip(reply.iter().flatten()) {
            if verdict.is_ok() && !self.machines.contains(&machine.worker) {
                self.machines.push(machine.worker.clone());
            }
            self.count_refusal(verdict);
        }
        self.count_refusal(&reply);
        format!("{reply:?}")
    }

    pub(super) fn on_note(&mut self, truth: Truth, notes: &[(u8, u8)], jitter: u16) -> String {
        let Some((session, term)) = self.term(truth) else { return String::new() };
        let mut said = Vec::new();
        for (which, what) in notes {
            let Some(worker) = self.machine(*which) else { continue };
            let what = match what {
                0 | 1 => MachineSaid::Created { handle: format!("i-{which}") },
                2 => MachineSaid::Failed { reason: "no such zone".to_owned() },
                _ => MachineSaid::Destroyed,
            };
            said.push((worker, what));
        }
        self.note_all(NoteMachines { session, term, notes: said, jitter })
    }

    fn note_all(&mut self, op: NoteMachines) -> String {
        let said = op.notes.clone();
        let leader = (op.session, op.term);
        let reply = self.call(op);
        self.check_led(leader, &reply);
        for ((_, said), noted) in said.iter().zip(reply.iter().flatten()) {
            let words = format!("{said:?}");
            self.count(format!("machine {} {noted}", words.split([' ', '{']).next().expect("a name")));
        }
        format!("{reply:?}")
    }

    pub(super) fn on_retire(&mut self, truth: Truth, machines: &[(u8, u8)]) -> String {
        let Some((session, term)) = self.term(truth) else { return String::new() };
        let mut given_up = Vec::new();
        for (which, why) in machines {
            let Some(worker) = self.machine(*which) else { continue };
            given_up.push((worker, CAUSES[usize::from(*why) % CAUSES.len()]));
        }
        let reply = self.call(Retire { session, term, machines: given_up, jitter: 500 });
        self.check_led((session, term), &reply);
        for retired in reply.iter().flatten() {
            self.count(format!("retired {retired}"));
        }
        format!("{reply:?}")
    }

    /// A live leader does what a right one would: buys, hears of machines, gives them up.
    pub(super) fn on_scale(&mut self, what: u8) -> String {
        let session = self.live_session();
        let Ok(lead) = self.call(LeadScaling { session }) else { return String::new() };
        self.terms.push((session, lead.term));
        let (machines, term) = (self.cell.ledger.scale_state().machines, lead.term);
        let truth = Truth::Right;
        match what {
            0 | 1 => self.on_provision(truth, &[(0, 9), (1, 9), (2, 9)]),
            2 | 3 => {
                let on_way = machines.into_iter().filter(|machine| machine.record.stage.is_in_flight());
                let said = MachineSaid::Created { handle: "i-7".to_owned() };
                let notes = on_way.map(|machine| (machine.record.worker.clone(), said.clone())).collect();
                self.note_all(NoteMachines { session, term, notes, jitter: 0 })
            }
            4 => {
                let why = |stage: Stage| if stage.is_in_flight() { RetireCause::BootLimit } else { RetireCause::Idle };
                let named = machines.iter().map(|m| (m.record.worker.clone(), why(m.record.stage))).collect();
                let reply = self.call(Retire { session, term, machines: named, jitter: 0 }).expect("it leads");
                reply.iter().for_each(|retired| self.count(format!("retired {retired}")));
                format!("{reply:?}")
            }
            5 => {
                let on_way = machines.into_iter().filter(|machine| machine.record.stage.is_in_flight());
                let said = MachineSaid::Failed { reason: "no capacity".to_owned() };
                let notes = on_way.map(|machine| (machine.record.worker.clone(), said.clone())).collect();
                self.note_all(NoteMachines { session, term, notes, jitter: 1_000 })
            }
            _ => {
                let leaving = |stage: Stage| matches!(stage, Stage::Destroying { .. });
                let gone = machines.into_iter().filter(|machine| leaving(machine.record.stage));
                let notes = gone.map(|machine| (machine.record.worker.clone(), MachineSaid::Destroyed)).collect();
                self.note_all(NoteMachines { session, term, notes, jitter: 0 })
            }
        }
    }

    /// A machine's worker registers, by the name of its record; now and then in another pool.
    pub(super) fn on_register(&mut self, which: u8, session: u8, kind: u8) -> String {
        let Some(name) = self.machine(which) else { return String::new() };
        let Some(session) = self.session(session) else { return String::new() };
        let record = self.cell.ledger.scale_state().machines.into_iter().find(|m| m.record.worker == name);
        let pool = record.as_ref().map_or_else(|| pool_of(0), |machine| machine.record.pool.clone());
        let pool = if kind == 7 { pool_of(kind) } else { pool };
        let epoch = self.registration(&name, Truth::Right).0;
        let said = self.attach(session, machine_worker(&name, pool, kind), epoch, Vec::new(), false);
        let now = self.cell.ledger.scale_state().machines.into_iter().find(|m| m.record.worker == name);
        if let Some(now) = now.filter(|now| now.worker.is_some()) {
            assert!(!now.record.stage.is_in_flight(), "who registered is not on the way");
            self.count(format!("machine {}", now.record.stage.name()));
        }
        said
    }

    /// Every bought machine comes to an end: it registered, or it is destroyed.
    pub(super) fn end_machines(&mut self) {
        self.cell.later(self.cell.ledger.options().scale_lease);
        let session = self.live_session();
        let term = self.cell.call(LeadScaling { session }).expect("nobody leads any more").term;
        for _ in 0..3 {
            for machine in self.cell.ledger.scale_state().machines {
                let (id, stage) = (machine.record.worker.clone(), machine.record.stage);
                let why = if stage.is_in_flight() { RetireCause::BootLimit } else { RetireCause::Drained };
                self.cell.call(Retire { session, term, machines: vec![(id.clone(), why)], jitter: 0 }).expect("leads");
                let notes = vec![(id, MachineSaid::Destroyed)];
                self.cell.call(NoteMachines { session, term, notes, jitter: 0 }).expect("leads");
            }
        }
        for machine in self.cell.ledger.scale_state().machines {
            let busy = machine.worker.is_some_and(|worker| worker.containers > 0);
            assert!(busy && matches!(machine.record.stage, Stage::Draining { .. }), "{machine:?} comes to no end");
        }
    }

    fn machine(&self, which: u8) -> Option<WorkerId> {
        let newest = self.machines.len().checked_sub(1)?;
        Some(self.machines[newest - usize::from(which) % (newest + 1).min(6)].clone())
    }

    fn count_refusal<T, E: std::fmt::Debug>(&mut self, reply: &Result<T, E>) {
        if let Err(refusal) = reply {
            let words = format!("{refusal:?}");
            self.count(words.split([' ', '{']).next().expect("a name"));
        }
    }

    /// Opens a worker that was cordoned by itself, as its owner would.
    pub(super) fn open_quarantined(&mut self) {
        for record in self.cell.ledger.workers().into_iter().filter(|record| record.quarantine.is_some()) {
            self.count("quarantined");
            let worker = record.view.worker.id.clone();
            // A machine that is given up stays closed.
            let _ = self.cell.call(SetSchedulable { worker, to: volley_ledger::Schedulable::Open });
        }
    }
}

fn machine_id(pool: &PoolName, number: u64) -> WorkerId {
    WorkerId::new(&format!("{pool}-m{number}")).expect("a good name")
}
