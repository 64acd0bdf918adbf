//! The JSON of submissions: read field by field, so that every error names the field's path.
//! What is written as people write it (`500m`, `1Gi`, `30s`) is parsed by `model`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use volley_model::{
    Bytes, CpuMilli, GpuRequest, Millis, OnDisconnect, OnUnplaceable, PoolSelector, Resources, Retry, RetryOn, Sandbox,
    Spec, Submission, SubmissionBody, TenantName, ValidationError,
};

/// The fields of an object, taken one by one; what is left at the end is unknown.
pub(crate) struct Fields {
    path: String,
    map: Map<String, Value>,
    /// What was asked for.
    known: Vec<&'static str>,
}

pub(crate) type Checked<T> = Result<T, ValidationError>;

pub(crate) fn error<T>(path: String, problem: impl Display) -> Checked<T> {
    Err(ValidationError { path, problem: problem.to_string() })
}

impl Fields {
    pub(crate) fn of(path: &str, value: Value) -> Checked<Self> {
        match value {
            Value::Object(map) => Ok(Self { path: path.to_owned(), map, known: Vec::new() }),
            _ => error(if path.is_empty() { "body".to_owned() } else { path.to_owned() }, "give a JSON object"),
        }
    }

    fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn remove(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.map.remove(name)
    }

    /// As its type's JSON; `None` when absent or null.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &'static str) -> Checked<Option<T>> {
        match self.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).or_else(|problem| error(self.path(name), problem)),
        }
    }

    /// As text or a number in people's writing.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Checked<Option<T>> {
        let text = match self.remove(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text,
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => return error(self.path(name), "give a text, as in \"500m\" or \"1Gi\""),
        };
        text.parse().map(Some).or_else(|problem| error(self.path(name), problem))
    }

    pub(crate) fn done(self) -> Checked<()> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => {
                error(self.path(name), format!("unknown field; the fields here are {}", self.known.join(", ")))
            }
        }
    }
}

/// Reads a submission: `spec` and `count`, or `specs`; with `client_key`, `name`, `labels`.
pub fn submission_from(body: &[u8], tenant: TenantName, header_key: Option<String>) -> Checked<Submission> {
    let value = serde_json::from_slice(body).or_else(|problem| error("body".to_owned(), problem))?;
    let mut fields = Fields::of("", value)?;
    let client_key: Option<String> = fields.take("client_key")?;
    let name = fields.take("name")?;
    let labels: Option<BTreeMap<String, String>> = fields.take("labels")?;
    let count: Option<u64> = fields.take("count")?;
    let (spec, specs) = (fields.take::<Value>("spec")?, fields.take::<Vec<Value>>("specs")?);
    fields.done()?;
    let body = match (spec, specs) {
        (Some(spec), None) => SubmissionBody::Count { spec: spec_from("spec", spec)?, count: count.unwrap_or(1) },
        (None, Some(specs)) if count.is_none() => {
            let numbered = specs.into_iter().enumerate();
            let specs = numbered.map(|(index, spec)| spec_from(&format!("specs[{index}]"), spec));
            SubmissionBody::List(specs.collect::<Checked<_>>()?)
        }
        _ => return error("spec".to_owned(), "give either 'spec' (with 'count'), or 'specs' without 'count'"),
    };
    body.check(tenant, header_key.or(client_key), name, labels.unwrap_or_default())
}

/// Reads a spec; `path` leads the errors.
pub fn spec_from(path: &str, value: Value) -> Checked<Spec> {
    let mut fields = Fields::of(path, value)?;
    let mut spec = Spec::of_command("", &[]);
    spec.command = fields.take("command")?.unwrap_or_default();
    spec.args = fields.take("args")?.unwrap_or_default();
    spec.env = fields.take("env")?.unwrap_or_default();
    spec.working_dir = fields.take("working_dir")?;
    spec.image = fields.take("image")?;
    spec.sandbox = sandbox_from(&mut fields)?;
    if spec.command.is_empty() && spec.image.is_none() {
        return error(fields.path("command"), "give the program to run, or an image that names one");
    }
    if let Some(resources) = fields.take::<Value>("resources")? {
        spec.resources = resources_from(&fields.path("resources"), resources)?;
    }
    spec.pool = fields.take::<PoolSelector>("pool")?.unwrap_or_default();
    spec.require_labels = fields.take("require_labels")?.unwrap_or_default();
    spec.affinity = fields.take("affinity")?;
    spec.priority = fields.take("priority")?.unwrap_or(0);
    if let Some(retry) = fields.take::<Value>("retry")? {
        spec.retry = retry_from(&fields.path("retry"), retry)?;
    }
    spec.max_wait = fields.parse("max_wait")?;
    spec.on_unplaceable = fields.take::<OnUnplaceable>("on_unplaceable")?.unwrap_or_default();
    spec.on_disconnect = fields.take::<OnDisconnect>("on_disconnect")?.unwrap_or_default();
    spec.stop_grace = fields.parse::<Millis>("stop_grace")?.unwrap_or(Spec::STOP_GRACE);
    spec.log_limit = fields.parse::<Bytes>("log_limit")?.unwrap_or(Spec::LOG_LIMIT);
    fields.done()?;
    Ok(spec)
}

fn sandbox_from(fields: &mut Fields) -> Checked<Sandbox> {
    let mounts: Vec<String> = fields.take("mounts")?.unwrap_or_default();
    let path = fields.path("mounts");
    let numbered = mounts.iter().enumerate();
    let mounts =
        numbered.map(|(index, mount)| mount.parse().or_else(|problem| error(format!("{path}[{index}]"), problem)));
    Ok(Sandbox {
        mounts: mounts.collect::<Checked<_>>()?,
        user: fields.take("user")?,
        read_only: fields.take("read_only")?.unwrap_or_default(),
        network: fields.take("network")?.unwrap_or_default(),
        pull: fields.take("pull")?.unwrap_or_default(),
    })
}

fn resources_from(path: &str, value: Value) -> Checked<Resources> {
    let mut fields = Fields::of(path, value)?;
    let resources = Resources {
        cpu: fields.parse::<CpuMilli>("cpu")?.unwrap_or_default(),
        memory: fields.parse::<Bytes>("memory")?.unwrap_or_default(),
        gpu: fields.parse::<GpuRequest>("gpu")?,
    };
    fields.done()?;
    Ok(resources)
}

fn retry_from(path: &str, value: Value) -> Checked<Retry> {
    match value.as_str() {
        Some("never") => return Ok(Retry::Never),
        Some("on_lost") => return Ok(Retry::OnLost),
        Some(_) => return error(path.to_owned(), "give 'never', 'on_lost', or an object with attempts_max"),
        None => {}
    }
    let mut fields = Fields::of(path, value)?;
    let retry = Retry::UpTo {
        attempts_max: fields.take("attempts_max")?.unwrap_or(0),
        backoff: fields.parse("backoff")?.unwrap_or(Millis(1_000)),
        backoff_max: fields.parse("backoff_max")?.unwrap_or(Millis(60_000)),
        on: fields.take("on")?.unwrap_or_else(|| vec![RetryOn::ExitNonzero, RetryOn::Failed, RetryOn::Lost]),
    };
    fields.done()?;
    Ok(retry)
}

/// Writes a spec as [`spec_from`] reads it.
#[must_use]
pub fn spec_to(spec: &Spec) -> Value {
    let mut resources = json!({ "cpu": spec.resources.cpu.to_string(), "memory": spec.resources.memory.to_string() });
    if let Some(gpu) = &spec.resources.gpu {
        resources["gpu"] = gpu.to_string().into();
    }
    let retry = match &spec.retry {
        Retry::Never => json!("never"),
        Retry::OnLost => json!("on_lost"),
        Retry::UpTo { attempts_max, backoff, backoff_max, on } => json!({
            "attempts_max": attempts_max, "backoff": backoff.to_string(), "backoff_max": backoff_max.to_string(), "on": on,
        }),
    };
    let mut value = json!({
        "command": spec.command, "args": spec.args, "env": spec.env, "resources": resources, "pool": spec.pool,
        "require_labels": spec.require_labels, "priority": spec.priority, "retry": retry,
        "on_unplaceable": spec.on_unplaceable, "on_disconnect": spec.on_disconnect,
        "stop_grace": spec.stop_grace.to_string(), "log_limit": spec.log_limit.to_string(),
    });
    if spec.sandbox != Sandbox::default() {
        let mounts: Vec<String> = spec.sandbox.mounts.iter().map(ToString::to_string).collect();
        value["mounts"] = mounts.into();
        value["read_only"] = spec.sandbox.read_only.into();
        value["network"] = json!(spec.sandbox.network);
        value["pull"] = json!(spec.sandbox.pull);
    }
    let texts = [
        ("working_dir", &spec.working_dir),
        ("image", &spec.image),
        ("affinity", &spec.affinity),
        ("user", &spec.sandbox.user),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            value[name] = text.clone().into();
        }
    }
    if let Some(wait) = spec.max_wait {
        value["max_wait"] = wait.to_string().into();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(body: &str) -> String {
        submission_from(body.as_bytes(), TenantName::default(), None).unwrap_err().to_string()
    }

    #[test]
    fn mistakes_name_the_field() {
        for (body, start) in [
            ("[]", "body: give a JSON object"),
            ("{", "body: "),
            (
                r#"{"spec": {"command": "a"}, "cuont": 3}"#,
                "cuont: unknown field; the fields here are client_key, name, ",
            ),
            (r#"{"spec": {"command": "a"}, "count": 0}"#, "count: 0 is out of range"),
            (r#"{"spec": {"command": "a"}, "count": -1}"#, "count: "),
            (r#"{"spec": {"command": "a"}, "count": 100001}"#, "count: 100001 is out of range"),
            (r#"{"spec": {"args": []}}"#, "spec.command: "),
            (r#"{"spec": {"command": "a", "resources": {"cpu": "-1"}}}"#, "spec.resources.cpu: "),
            (
                r#"{"specs": [{"command": "a"}, {"command": "b", "resources": {"memory": "3Q"}}]}"#,
                "specs[1].resources.memory: ",
            ),
            (r#"{"specs": [{"command": "a", "x": 1}]}"#, "specs[0].x: unknown field"),
            (r#"{"specs": []}"#, "specs: "),
            (r#"{"specs": [{"command": "a"}], "count": 2}"#, "spec: give either"),
        ] {
            let found = problem(body);
            assert!(found.starts_with(start), "{body}: {found}");
        }
    }

    #[test]
    fn a_spec_is_read_as_it_is_written() {
        let mut spec = Spec::of_command("sh", &["-c", "true"]);
        spec.env.insert("A".to_owned(), "b".to_owned());
        spec.resources = Resources { cpu: CpuMilli(1500), memory: Bytes(1 << 30), gpu: "H100:2".parse().ok() };
        spec.retry = Retry::UpTo {
            attempts_max: 3,
            backoff: Millis(1500),
            backoff_max: Millis(60_000),
            on: vec![RetryOn::Failed],
        };
        spec.max_wait = Some(Millis(90_000));
        spec.affinity = Some("key".to_owned());
        assert_eq!(spec_from("spec", spec_to(&spec)).unwrap(), spec);
        spec.image = Some("busybox".to_owned());
        let mounts = ["/data:/mnt:ro", "tmpfs:/x:1Mi"].map(|mount| mount.parse().unwrap()).to_vec();
        spec.sandbox = Sandbox {
            user: Some("1:2".to_owned()),
            read_only: true,
            network: volley_model::Network::Host,
            mounts,
            pull: volley_model::PullPolicy::Always,
        };
        assert_eq!(spec_from("spec", spec_to(&spec)).unwrap(), spec);
    }
}
