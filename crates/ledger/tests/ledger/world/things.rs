//! What the world of a random sequence is made of: limits, tenants, specs, machines.

use std::collections::BTreeMap;

use volley_ledger::{LedgerOptions, Progress};
use volley_model::{
    Bytes, Capacity, Cost, CpuMilli, Elastic, GPU_WHOLE, GpuKinds, GpuMilli, GpuRequest, Machine, MinFree,
    OnDisconnect, OnUnplaceable, Outcome, Pool, PoolName, ProvisionerKind, Retry, RetryOn, Spec, TenantName, Worker,
    WorkerId,
};

use crate::cell::secs;
use crate::steps::Said;

/// Terms so short and limits so tight that a sequence of a few dozen steps meets them.
pub fn options() -> LedgerOptions {
    LedgerOptions {
        failing_specs_max: 2,
        demand_shapes_max: 3,
        demand_runs_max: 2,
        key_retention: secs(300),
        backlog_max: 200,
        workers_max: 4,
        finished_containers_max: 40,
        finished_age_max: secs(250),
        events_max: 100,
        events_age_max: secs(250),
        lost_worker_age_max: secs(90),
        kept_attempt_age_max: secs(200),
        recheck_max: 2,
        claim_containers_max: 25,
        affinity_keys_max: 2,
        tombstones_max: 2,
        take_deliveries_max: 5,
        tenants_max: 1,
        tokens_max: 3,
        token_record_age_max: secs(10),
        ..LedgerOptions::default()
    }
}

/// Three in four times the default tenant.
pub fn tenant_of(which: u8) -> TenantName {
    if which == 3 { TenantName::new("other").expect("a good name") } else { TenantName::default() }
}

pub fn progress(said: Said) -> Progress {
    match said {
        Said::Accepted => Progress::Accepted,
        Said::Running => Progress::Running,
        Said::Exited(code) => Progress::Ended(Outcome::Exited { code: i32::from(code), signal: None }),
        Said::Failed => Progress::Ended(Outcome::Failed { reason: "no such command".to_owned() }),
        Said::Lost => Progress::Ended(Outcome::Lost),
    }
}

/// Eight kinds of spec, five shapes.
pub fn spec(which: u8) -> Spec {
    let mut spec = Spec::of_command("true", &[]);
    spec.resources.cpu = CpuMilli(500 + 500 * u64::from(which % 3));
    match which {
        1 => spec.max_wait = Some(secs(20)),
        2 => spec.priority = 7,
        3 => {
            spec.retry = Retry::Never;
            spec.on_disconnect = OnDisconnect::Keep;
        }
        4 => {
            let on = vec![RetryOn::ExitNonzero, RetryOn::Failed];
            spec.retry = Retry::UpTo { attempts_max: 3, backoff: secs(2), backoff_max: secs(3), on };
            spec.max_wait = Some(secs(40));
        }
        5 => {
            spec.resources.gpu = Some(GpuRequest { kinds: GpuKinds::Any, count: 1, milli: GpuMilli(400) });
            spec.affinity = Some("model".to_owned());
        }
        6 => spec.resources.gpu = Some(GpuRequest { kinds: GpuKinds::Any, count: 2, milli: GPU_WHOLE }),
        7 => spec.on_unplaceable = OnUnplaceable::Fail,
        _ => {}
    }
    spec
}

pub fn pool_of(which: u8) -> PoolName {
    PoolName::new(&format!("pool{}", which % 3)).expect("a good name")
}

/// One of three pools: of workers that come by themselves, or elastic with tight limits.
pub fn elastic(which: u8) -> Pool {
    let small = u32::from(which % 4);
    let provisioner = match which % 7 {
        0..3 => ProvisionerKind::Process,
        _ => ProvisionerKind::Command { program: "/bin/true".to_owned(), args: Vec::new(), timeout: secs(10) },
    };
    let elastic = Elastic {
        provisioner,
        options: BTreeMap::new(),
        machine: Machine { capacity: worker(0, 3).capacity, labels: BTreeMap::new() },
        min: 0,
        max: small + 1,
        min_free: MinFree::default(),
        cost_per_hour: Cost(1 + u64::from(which)),
        boot_time: secs(5),
        boot_limit: secs(20),
        idle_timeout: secs(30),
        fallback_after: secs(3),
        in_flight_max: 1 + small / 2,
        per_minute_max: 1 + small / 2,
    };
    let elastic = (!which.is_multiple_of(6)).then_some(elastic);
    Pool { priority: i16::from(which), elastic, ..Pool::with_defaults(pool_of(which)) }
}

/// A machine's worker: as its pool says, or with less.
pub fn machine_worker(name: &WorkerId, pool: PoolName, kind: u8) -> Worker {
    let mut capacity = worker(0, 3).capacity;
    if kind == 0 {
        capacity.cpu = CpuMilli(500);
    }
    Worker { id: name.clone(), pool, labels: BTreeMap::new(), capacity, notes: Vec::new() }
}

/// Five names for four places, and a few machines that may come under each name.
pub fn worker(which: u8, machine: u8) -> Worker {
    let slots = 1 + u32::from(machine);
    Worker {
        id: WorkerId::new(&format!("w{}", which % 5)).expect("a good name"),
        pool: PoolName::new(&format!("pool{}", machine % 3)).expect("a good name"),
        labels: BTreeMap::new(),
        capacity: Capacity {
            cpu: CpuMilli(1000 * u64::from(slots)),
            memory: Bytes(1 << 30),
            slots,
            gpus: vec!["A10G".to_owned(); usize::from(machine % 4)],
        },
        notes: Vec::new(),
    }
}
