//! The backlog and the pools that are measured: as records for a server, and the same for a plan in memory. Pure.

use std::collections::BTreeMap;

use volley_model::{
    Bytes, Capacity, Cost, CpuMilli, Elastic, Machine, Millis, MinFree, Pool, PoolName, ProvisionerKind, Spec,
};

/// What only these pools' machines have, so that no other worker serves the backlog.
const LABEL: &str = "bench";
/// On their way at most, of each pool: so many calls of the provisioner are made once.
pub(super) const IN_FLIGHT_MAX: u32 = 5;
/// A provisioner whose machines never come.
const PROVISION: &str =
    r#"case $(cat) in *create*) echo '{"machine": "m"}';; *list*) echo '{"machines": []}';; *) echo '{}';; esac"#;

/// Machines of different sizes and costs, at two priorities.
pub(super) fn pool(number: usize, elastic: bool) -> Pool {
    let size = 1 + number as u64 % 7;
    let name = PoolName::new(&format!("pool-{number}")).expect("a good name");
    let gpus = if number % 5 == 4 { vec!["H100".to_owned(); 4] } else { Vec::new() };
    let capacity = Capacity {
        cpu: CpuMilli(size * 8_000),
        memory: Bytes((size * 16 + number as u64) << 30),
        slots: 16 * size as u32,
        gpus,
    };
    let definition = Elastic {
        provisioner: ProvisionerKind::Command {
            program: "/bin/sh".to_owned(),
            args: vec!["-c".to_owned(), PROVISION.to_owned()],
            timeout: Elastic::COMMAND_TIMEOUT,
        },
        options: BTreeMap::new(),
        machine: Machine { capacity, labels: BTreeMap::from([(LABEL.to_owned(), "backlog".to_owned())]) },
        min: 0,
        max: 100_000,
        min_free: MinFree::default(),
        cost_per_hour: Cost(size * 300_000 + number as u64 * 7_919),
        boot_time: Elastic::BOOT_TIME,
        boot_limit: Millis::from_secs(24 * 3600),
        idle_timeout: Elastic::IDLE_TIMEOUT,
        fallback_after: Millis::from_secs(1),
        in_flight_max: IN_FLIGHT_MAX,
        per_minute_max: Elastic::PURCHASES,
    };
    Pool {
        priority: i16::from(number.is_multiple_of(2)),
        elastic: elastic.then_some(definition),
        ..Pool::with_defaults(name)
    }
}

/// One in eight asks for GPUs; all differ.
pub(super) fn spec(shape: usize) -> Spec {
    let mut spec = Spec::of_command("true", &[]);
    spec.resources.cpu = CpuMilli(250 + 125 * (shape as u64 % 29));
    spec.resources.memory = Bytes((256 + 192 * (shape as u64 % 23) + shape as u64) << 20);
    if shape % 8 == 7 {
        spec.resources.gpu = Some(format!("H100:{}", 1 + shape / 8 % 2).parse().expect("a good amount"));
    }
    spec.require_labels.insert(LABEL.to_owned(), "backlog".to_owned());
    spec
}

/// How many wait of a shape.
pub(super) fn part(containers: u32, shapes: usize, shape: usize) -> u32 {
    let shapes_count = shapes as u32;
    containers / shapes_count + u32::from((shape as u32) < containers % shapes_count)
}
