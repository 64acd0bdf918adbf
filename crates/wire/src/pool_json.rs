//! The JSON of pools, as people write it: read field by field, so that every error names the field's path.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use volley_model::{
    Bytes, Capacity, Cost, CpuMilli, Elastic, GPU_WHOLE, GpuKinds, GpuRequest, Machine, Millis, MinFree, Pool,
    PoolName, ProvisionerKind, RUNTIME_OCI, RUNTIME_PROCESS, Strategy, ValidationError,
};

use crate::json::{Checked, Fields, error};

/// Slots of a machine when nothing is said: as many as a worker offers by itself.
const SLOTS: u32 = 256;

/// Reads and checks a pool. Fields that are not there have their defaults; unknown ones are errors.
pub fn pool_from(value: Value) -> Checked<Pool> {
    let mut fields = Fields::of("", value)?;
    let Some(name) = fields.take::<PoolName>("name")? else { return error("name".to_owned(), "give the pool's name") };
    let mut pool = Pool::with_defaults(name);
    pool.priority = fields.take("priority")?.unwrap_or(pool.priority);
    pool.strategy = fields.take::<Strategy>("strategy")?.unwrap_or_default();
    pool.cpu_on_gpu = fields.take("cpu_on_gpu")?.unwrap_or(false);
    pool.tenants = fields.take("tenants")?.unwrap_or_default();
    pool.runtimes = fields.take("runtimes")?.unwrap_or_default();
    if let Some(other) = pool.runtimes.iter().find(|name| ![RUNTIME_PROCESS, RUNTIME_OCI].contains(&name.as_str())) {
        return error(
            "runtimes".to_owned(),
            format!("'{other}' is no runtime; give {RUNTIME_PROCESS} or {RUNTIME_OCI}"),
        );
    }
    pool.host_network = fields.take("host_network")?.unwrap_or(true);
    pool.elastic = match fields.take::<Value>("provisioner")? {
        None => None,
        Some(Value::String(kind)) if kind == "static" => None,
        Some(kind) => Some(elastic_from(provisioner_from(kind)?, &mut fields)?),
    };
    fields.done().map_err(|problem| explain_unknown(problem, pool.elastic.is_some()))?;
    pool.check()?;
    Ok(pool)
}

/// What only an elastic pool has reads as unknown in a static one.
fn explain_unknown(problem: ValidationError, elastic: bool) -> ValidationError {
    const ELASTIC: [&str; 12] = [
        "options",
        "machine",
        "min",
        "max",
        "min_free",
        "cost_per_hour",
        "boot_time",
        "boot_limit",
        "idle_timeout",
        "fallback_after",
        "in_flight_max",
        "per_minute_max",
    ];
    if elastic || !ELASTIC.contains(&problem.path.as_str()) {
        return problem;
    }
    let words = "only a pool with a provisioner has this; give provisioner = \"process\" or a command";
    ValidationError { path: problem.path, problem: words.to_owned() }
}

fn provisioner_from(value: Value) -> Checked<ProvisionerKind> {
    match value {
        Value::String(kind) if kind == "process" => Ok(ProvisionerKind::Process),
        Value::Object(_) => {
            let mut fields = Fields::of("provisioner", value)?;
            let Some(program) = fields.take::<String>("command")? else {
                return error("provisioner.command".to_owned(), "give the program's path");
            };
            let args = fields.take("args")?.unwrap_or_default();
            let timeout = fields.parse::<Millis>("timeout")?.unwrap_or(Elastic::COMMAND_TIMEOUT);
            fields.done()?;
            Ok(ProvisionerKind::Command { program, args, timeout })
        }
        _ => error("provisioner".to_owned(), "give 'static', 'process', or an object with command, args, timeout"),
    }
}

fn elastic_from(provisioner: ProvisionerKind, fields: &mut Fields) -> Checked<Elastic> {
    let Some(machine) = fields.take::<Value>("machine")? else {
        return error("machine".to_owned(), "say what one machine offers: cpu, memory, slots, gpus, labels");
    };
    let Some(max) = fields.take("max")? else {
        return error("max".to_owned(), "say how many machines there may be at most");
    };
    let min_free = match fields.take::<Value>("min_free")? {
        None => MinFree::default(),
        Some(value) => {
            let mut fields = Fields::of("min_free", value)?;
            let min_free = MinFree {
                cpu: fields.parse("cpu")?.unwrap_or_default(),
                memory: fields.parse("memory")?.unwrap_or_default(),
                slots: fields.take("slots")?.unwrap_or_default(),
                gpus: fields.take("gpus")?.unwrap_or_default(),
            };
            fields.done()?;
            min_free
        }
    };
    Ok(Elastic {
        provisioner,
        options: fields.take("options")?.unwrap_or_default(),
        machine: machine_from(machine)?,
        min: fields.take("min")?.unwrap_or(0),
        max,
        min_free,
        cost_per_hour: fields.parse("cost_per_hour")?.unwrap_or_default(),
        boot_time: fields.parse("boot_time")?.unwrap_or(Elastic::BOOT_TIME),
        boot_limit: fields.parse("boot_limit")?.unwrap_or(Elastic::BOOT_LIMIT),
        idle_timeout: fields.parse("idle_timeout")?.unwrap_or(Elastic::IDLE_TIMEOUT),
        fallback_after: fields.parse("fallback_after")?.unwrap_or(Elastic::FALLBACK_AFTER),
        in_flight_max: fields.take("in_flight_max")?.unwrap_or(Elastic::PURCHASES),
        per_minute_max: fields.take("per_minute_max")?.unwrap_or(Elastic::PURCHASES),
    })
}

fn machine_from(value: Value) -> Checked<Machine> {
    let mut fields = Fields::of("machine", value)?;
    let capacity = Capacity {
        cpu: fields.parse::<CpuMilli>("cpu")?.unwrap_or_default(),
        memory: fields.parse::<Bytes>("memory")?.unwrap_or_default(),
        slots: fields.take("slots")?.unwrap_or(SLOTS),
        gpus: gpus_from(fields.take::<Vec<String>>("gpus")?.unwrap_or_default())?,
    };
    let labels: BTreeMap<String, String> = fields.take("labels")?.unwrap_or_default();
    fields.done()?;
    Ok(Machine { capacity, labels })
}

/// `["H100:8"]` as one kind for each device.
fn gpus_from(texts: Vec<String>) -> Checked<Vec<String>> {
    let mut gpus = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let path = format!("machine.gpus[{index}]");
        let request: GpuRequest = text.parse().or_else(|problem| error(path.clone(), problem))?;
        let GpuKinds::Ordered(kinds) = &request.kinds else { return error(path, "name the kind, as in H100:8") };
        if kinds.len() != 1 || request.milli != GPU_WHOLE {
            return error(path, "give one kind and a whole number, as in H100:8");
        }
        gpus.extend(std::iter::repeat_n(kinds[0].clone(), usize::from(request.count)));
    }
    Ok(gpus)
}

/// Writes a pool as [`pool_from`] reads it; with its version besides, when it has one.
#[must_use]
pub fn pool_to(pool: &Pool) -> Value {
    let mut value = json!({
        "name": pool.name, "priority": pool.priority, "strategy": pool.strategy, "cpu_on_gpu": pool.cpu_on_gpu,
        "tenants": pool.tenants,
    });
    if !pool.runtimes.is_empty() {
        value["runtimes"] = json!(pool.runtimes);
    }
    if !pool.host_network {
        value["host_network"] = false.into();
    }
    let Some(elastic) = &pool.elastic else {
        value["provisioner"] = "static".into();
        return value;
    };
    value["provisioner"] = match &elastic.provisioner {
        ProvisionerKind::Process => "process".into(),
        ProvisionerKind::Command { program, args, timeout } => {
            json!({ "command": program, "args": args, "timeout": timeout.to_string() })
        }
    };
    let warm = &elastic.min_free;
    let rest = json!({
        "options": elastic.options, "machine": machine_to(&elastic.machine), "min": elastic.min, "max": elastic.max,
        "min_free": { "cpu": warm.cpu.to_string(), "memory": warm.memory.to_string(), "slots": warm.slots,
                      "gpus": warm.gpus },
        "cost_per_hour": elastic.cost_per_hour.to_string(), "boot_time": elastic.boot_time.to_string(),
        "boot_limit": elastic.boot_limit.to_string(), "idle_timeout": elastic.idle_timeout.to_string(),
        "fallback_after": elastic.fallback_after.to_string(), "in_flight_max": elastic.in_flight_max,
        "per_minute_max": elastic.per_minute_max,
    });
    if let (Value::Object(value), Value::Object(rest)) = (&mut value, rest) {
        value.extend(rest);
    }
    value
}

fn machine_to(machine: &Machine) -> Value {
    let mut gpus: Vec<(&String, u32)> = Vec::new();
    for kind in &machine.capacity.gpus {
        match gpus.last_mut() {
            Some((last, count)) if *last == kind => *count += 1,
            _ => gpus.push((kind, 1)),
        }
    }
    let gpus: Vec<String> = gpus.into_iter().map(|(kind, count)| format!("{kind}:{count}")).collect();
    json!({
        "cpu": machine.capacity.cpu.to_string(), "memory": machine.capacity.memory.to_string(),
        "slots": machine.capacity.slots, "gpus": gpus, "labels": machine.labels,
    })
}

/// A cost as text.
#[must_use]
pub fn cost_to(cost: Cost) -> Value {
    cost.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        pool_from(serde_json::from_str(text).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_name_the_field() {
        for (body, start) in [
            ("{}", "name: "),
            (r#"{"name": "a b"}"#, "name: "),
            (r#"{"name": "a", "pirority": 1}"#, "pirority: unknown field"),
            (r#"{"name": "a", "max": 3}"#, "max: only a pool with a provisioner"),
            (r#"{"name": "a", "provisioner": "magic"}"#, "provisioner: "),
            (r#"{"name": "a", "provisioner": {"args": []}}"#, "provisioner.command: "),
            (r#"{"name": "a", "provisioner": "process"}"#, "machine: "),
            (r#"{"name": "a", "provisioner": "process", "machine": {"cpu": "x"}, "max": 1}"#, "machine.cpu: "),
            (
                r#"{"name": "a", "provisioner": "process", "machine": {"gpus": ["H100:0.5"]}, "max": 1}"#,
                "machine.gpus[0]: ",
            ),
            (
                r#"{"name": "a", "provisioner": "process", "machine": {}, "max": 1, "min": 2}"#,
                "min: 2 is more than max",
            ),
            (
                r#"{"name": "a", "provisioner": "process", "machine": {"cpu": "1"}, "max": 2, "min_free": {"cpu": "3"}}"#,
                "min_free.cpu: ",
            ),
            (
                r#"{"name": "a", "provisioner": {"command": "x", "timeout": "1ms"}, "machine": {}, "max": 1}"#,
                "provisioner.timeout: ",
            ),
        ] {
            let found = problem(body);
            assert!(found.starts_with(start), "{body}: {found}");
        }
    }

    #[test]
    fn a_pool_is_read_as_it_is_written() {
        let text = r#"{
            "name": "gpu", "priority": 5, "strategy": "spread", "cpu_on_gpu": true, "tenants": ["a"],
            "runtimes": ["oci"], "host_network": false,
            "provisioner": {"command": "/opt/make", "args": ["-v"], "timeout": "90s"}, "options": {"zone": "b"},
            "machine": {"cpu": "8", "memory": "64Gi", "slots": 10, "gpus": ["H100:4", "A10G:1"], "labels": {"x": "y"}},
            "min": 1, "max": 9, "min_free": {"gpus": 2}, "cost_per_hour": "12.5", "boot_time": "40s",
            "boot_limit": "5m", "idle_timeout": "2m", "fallback_after": "3s", "in_flight_max": 4, "per_minute_max": 5}"#;
        let pool = pool_from(serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(pool.elastic.as_ref().unwrap().machine.capacity.gpus.len(), 5);
        assert_eq!(pool_from(pool_to(&pool)).unwrap(), pool);
        let plain = Pool::with_defaults(PoolName::default());
        assert_eq!(pool_from(pool_to(&plain)).unwrap(), plain);
    }
}
