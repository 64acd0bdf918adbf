//! Random steps: what may be asked of a ledger, right, stale, repeated or absurd. Numbers are
//! choices among what there is when the step is taken. Knows nothing of what they lead to.

use proptest::collection::vec;
use proptest::prelude::*;

/// One step of a sequence.
#[derive(Debug, Clone)]
pub enum Step {
    Submit {
        runs: Vec<(u8, u8)>,
        key: Option<u8>,
        body: u8,
        tenant: u8,
        reuse_id: bool,
    },
    OpenSession(u8),
    CloseSession(u8),
    Claim {
        session: u8,
        number: Number,
        max: u8,
        changes_max: u8,
        known: Known,
    },
    Commit {
        session: u8,
        number: Number,
        picks: Vec<Pick>,
        marks: Marks,
    },
    Attach {
        worker: u8,
        session: u8,
        epoch: Truth,
        held: Vec<(u8, Said)>,
        machine: u8,
    },
    Heartbeat {
        session: u8,
        workers: Vec<(u8, Truth)>,
    },
    Report {
        session: u8,
        messages: Vec<(u8, Said, Truth)>,
    },
    Stop {
        target: u8,
        group: bool,
        tenant: u8,
        force: bool,
    },
    Schedulable {
        worker: u8,
        to: u8,
    },
    ApplyPool(u8),
    RemovePool(u8),
    CreateToken {
        which: u8,
        tenant: u8,
        role: u8,
        life: Option<u8>,
    },
    RevokeToken(u8),
    ApplyTenant {
        tenant: u8,
        backlog: Option<u8>,
        rate: Option<(u8, u8)>,
    },
    RemoveTenant(u8),
    /// Asks for the right to buy.
    Lead(u8),
    /// As the last leader, one before, nobody, or in a term that was not: pools and ids.
    Provision {
        truth: Truth,
        machines: Vec<(u8, u8)>,
    },
    /// Machines and what their provisioner says.
    NoteMachines {
        truth: Truth,
        notes: Vec<(u8, u8)>,
        jitter: u16,
    },
    Retire {
        truth: Truth,
        machines: Vec<(u8, u8)>,
    },
    /// A right step of a live leader: it buys, hears, or gives up.
    Scale(u8),
    /// A bought machine's worker registers.
    Register {
        machine: u8,
        session: u8,
        kind: u8,
    },
    Sweep {
        items_max: u8,
    },
    /// A right turn of a live server: claim, first fit, commit.
    Turn {
        max: u8,
    },
    /// Right reports about attempts that live.
    Work {
        messages: Vec<(u8, Said)>,
    },
    /// All live servers and the workers they hold renew their leases.
    Beat,
    /// A worker comes back as it should, with all it holds, or all but some.
    Return {
        worker: u8,
        machine: u8,
        forgets: Option<u8>,
    },
    /// The last operation once more.
    Again,
    Pass(Span),
    Restart,
}

/// A session's number for a claim or commit.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    Next,
    Last,
    Older,
}

/// What a session says it knows of the fleet.
#[derive(Debug, Clone, Copy)]
pub enum Known {
    Truth,
    Nothing,
    Absurd,
}

/// Whether a number or nonce is the present one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Truth {
    Right,
    Older,
    Absent,
    Forged,
}

/// A placement: of one of the last claimed, on one of the workers, with a mistake or none.
#[derive(Debug, Clone)]
pub struct Pick {
    pub claimed: u8,
    pub worker: u8,
    pub mistake: Mistake,
}

#[derive(Debug, Clone, Copy)]
pub enum Mistake {
    None,
    Claim,
    Container,
    Epoch,
    Revision,
    Gpus,
}

/// What else a commit carries: choices of shapes and of claimed containers.
#[derive(Debug, Clone)]
pub struct Marks {
    pub blocked: Vec<(u8, u8)>,
    pub unblocked: Vec<u8>,
    pub returned: Vec<u8>,
    pub unplaceable: Vec<u8>,
    pub holds: Vec<(u8, u8)>,
}

/// What a worker says of an attempt.
#[derive(Debug, Clone, Copy)]
pub enum Said {
    Accepted,
    Running,
    Exited(u8),
    Failed,
    Lost,
}

/// How much time goes by.
#[derive(Debug, Clone, Copy)]
pub enum Span {
    Millis(u8),
    Seconds(u8),
    PastLease,
    PastRetention,
    /// A minute of sweeps in which workers are silent, and servers are not.
    SilentWorkers,
    /// Half a minute of sweeps in which nobody is heard.
    Silence,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let first =
        Step::Submit { runs: vec![(0, 9), (3, 2), (4, 3), (6, 1)], key: None, body: 0, tenant: 0, reuse_id: false };
    let begin = |worker, machine| Step::Return { worker, machine, forgets: None };
    let begun = Just(vec![
        Step::OpenSession(1),
        Step::ApplyPool(7),
        Step::ApplyPool(2),
        begin(0, 3),
        begin(1, 1),
        begin(2, 4),
        first,
    ]);
    // Now and then from nothing, so that a short counterexample is not hidden behind the beginning.
    (proptest::bool::weighted(0.9), begun, vec(step(), 1..80)).prop_map(|(begin, mut begun, rest)| {
        if begin {
            begun.extend(rest);
            begun
        } else {
            rest
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (vec((0..8u8, 1..30u8), 1..4), key(), 0..2u8, 0..4u8, prob(20))
            .prop_map(|(runs, key, body, tenant, reuse_id)| Step::Submit { runs, key, body, tenant, reuse_id }),
        2 => any::<u8>().prop_map(Step::OpenSession),
        1 => any::<u8>().prop_map(Step::CloseSession),
        14 => (any::<u8>(), number(), 0..30u8, 0..8u8, known())
            .prop_map(|(session, number, max, changes_max, known)| Step::Claim { session, number, max, changes_max, known }),
        16 => (any::<u8>(), number(), vec(pick(), 0..12), marks())
            .prop_map(|(session, number, picks, marks)| Step::Commit { session, number, picks, marks }),
        7 => (any::<u8>(), any::<u8>(), truth(), vec((any::<u8>(), said()), 0..10), 0..6u8)
            .prop_map(|(worker, session, epoch, held, machine)| Step::Attach { worker, session, epoch, held, machine }),
        4 => (any::<u8>(), vec((any::<u8>(), truth()), 0..5))
            .prop_map(|(session, workers)| Step::Heartbeat { session, workers }),
        16 => (any::<u8>(), vec((any::<u8>(), said(), truth()), 0..10))
            .prop_map(|(session, messages)| Step::Report { session, messages }),
        3 => (any::<u8>(), prob(6), 0..4u8, any::<bool>())
            .prop_map(|(target, group, tenant, force)| Step::Stop { target, group, tenant, force }),
        3 => (any::<u8>(), 0..5u8).prop_map(|(worker, to)| Step::Schedulable { worker, to }),
        2 => any::<u8>().prop_map(Step::ApplyPool),
        5 => any::<u8>().prop_map(Step::Lead),
        5 => (truth(), vec((any::<u8>(), 0..12u8), 1..4)).prop_map(|(truth, machines)| Step::Provision { truth, machines }),
        4 => (truth(), vec((0..4u8, 0..4u8), 1..4), 0..1_001u16)
            .prop_map(|(truth, notes, jitter)| Step::NoteMachines { truth, notes, jitter }),
        4 => (truth(), vec((0..4u8, any::<u8>()), 1..4)).prop_map(|(truth, machines)| Step::Retire { truth, machines }),
        10 => (0..8u8).prop_map(Step::Scale),
        5 => (0..4u8, any::<u8>(), 0..8u8)
            .prop_map(|(machine, session, kind)| Step::Register { machine, session, kind }),
        1 => any::<u8>().prop_map(Step::RemovePool),
        3 => (0..6u8, 0..4u8, 0..4u8, proptest::option::of(1..20u8))
            .prop_map(|(which, tenant, role, life)| Step::CreateToken { which, tenant, role, life }),
        2 => (0..6u8).prop_map(Step::RevokeToken),
        2 => (0..4u8, proptest::option::of(1..60u8), proptest::option::of((1..10u8, 1..40u8)))
            .prop_map(|(tenant, backlog, rate)| Step::ApplyTenant { tenant, backlog, rate }),
        2 => (0..4u8).prop_map(Step::RemoveTenant),
        8 => (1..40u8).prop_map(|items_max| Step::Sweep { items_max }),
        4 => Just(Step::Again),
        8 => span().prop_map(Step::Pass),
        1 => Just(Step::Restart),
        20 => (1..12u8).prop_map(|max| Step::Turn { max }),
        20 => vec((any::<u8>(), said()), 1..6).prop_map(|messages| Step::Work { messages }),
        8 => Just(Step::Beat),
        7 => (any::<u8>(), 0..6u8, forgets())
            .prop_map(|(worker, machine, forgets)| Step::Return { worker, machine, forgets }),
    ]
}

fn prob(one_in: u32) -> impl Strategy<Value = bool> {
    proptest::bool::weighted(1.0 / f64::from(one_in))
}

fn forgets() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![5 => Just(None), 1 => any::<u8>().prop_map(Some)]
}

fn key() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![2 => Just(None), 1 => (0..4u8).prop_map(Some)]
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![12 => Just(Number::Next), 2 => Just(Number::Last), 1 => Just(Number::Older)]
}

fn known() -> impl Strategy<Value = Known> {
    prop_oneof![12 => Just(Known::Truth), 1 => Just(Known::Nothing), 1 => Just(Known::Absurd)]
}

fn truth() -> impl Strategy<Value = Truth> {
    prop_oneof![12 => Just(Truth::Right), 2 => Just(Truth::Older), 1 => Just(Truth::Absent), 1 => Just(Truth::Forged)]
}

fn said() -> impl Strategy<Value = Said> {
    prop_oneof![
        4 => Just(Said::Accepted),
        4 => Just(Said::Running),
        4 => prop_oneof![2 => Just(0u8), 1 => Just(1u8)].prop_map(Said::Exited),
        1 => Just(Said::Failed),
        1 => Just(Said::Lost),
    ]
}

fn pick() -> impl Strategy<Value = Pick> {
    let mistake = prop_oneof![
        20 => Just(Mistake::None),
        1 => Just(Mistake::Claim),
        1 => Just(Mistake::Container),
        1 => Just(Mistake::Epoch),
        1 => Just(Mistake::Revision),
        1 => Just(Mistake::Gpus),
    ];
    // Mostly the newest claims, which are the likeliest to be right.
    let claimed = prop_oneof![4 => 0..16u8, 1 => any::<u8>()];
    (claimed, any::<u8>(), mistake).prop_map(|(claimed, worker, mistake)| Pick { claimed, worker, mistake })
}

fn marks() -> impl Strategy<Value = Marks> {
    let blocked = vec((any::<u8>(), 0..4u8), 0..3);
    let parts = (
        blocked,
        vec(any::<u8>(), 0..2),
        vec(0..16u8, 0..3),
        vec(0..16u8, 0..2),
        vec((any::<u8>(), any::<u8>()), 0..2),
    );
    parts.prop_map(|(blocked, unblocked, returned, unplaceable, holds)| Marks {
        blocked,
        unblocked,
        returned,
        unplaceable,
        holds,
    })
}

fn span() -> impl Strategy<Value = Span> {
    prop_oneof![
        4 => any::<u8>().prop_map(Span::Millis),
        8 => (1..14u8).prop_map(Span::Seconds),
        1 => Just(Span::PastLease),
        1 => Just(Span::PastRetention),
        1 => Just(Span::SilentWorkers),
        1 => Just(Span::Silence),
    ]
}
