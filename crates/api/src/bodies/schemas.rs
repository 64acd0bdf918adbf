//! What `volley_wire::json` reads and writes by hand, described. A test holds the fields against what is written.

#![allow(dead_code, reason = "these types only describe")]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

/// Containers to run: one `spec` and a `count`, or a list of `specs`.
#[derive(ToSchema)]
pub(crate) struct Submission {
    /// The same key gives the same group for a day. `Idempotency-Key` as a header is the same.
    pub(crate) client_key: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) spec: Option<Spec>,
    /// 1 to 100,000; 1 when left out.
    pub(crate) count: Option<u64>,
    /// At most 10,000, one container each.
    pub(crate) specs: Option<Vec<Spec>>,
}

/// What to run and with what.
#[derive(ToSchema)]
pub(crate) struct Spec {
    /// The program.
    pub(crate) command: String,
    pub(crate) args: Option<Vec<String>>,
    pub(crate) env: Option<BTreeMap<String, String>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) image: Option<String>,
    /// User in the image, as in `name`, `name:group` or `1000:1000`.
    pub(crate) user: Option<String>,
    /// The image's files cannot be written.
    pub(crate) read_only: Option<bool>,
    /// `loopback` or `host`.
    pub(crate) network: Option<String>,
    /// As in `tmpfs:/path:64Mi` or `/host/path:/path:ro`.
    pub(crate) mounts: Option<Vec<String>>,
    /// `if_not_present`, `always` or `never`: when a worker asks what the image's reference means.
    pub(crate) pull: Option<String>,
    pub(crate) resources: Option<Resources>,
    /// `any`, or `{"preferred": NAME}`, or `{"required": NAME}`.
    #[schema(value_type = Option<Object>)]
    pub(crate) pool: Option<Value>,
    pub(crate) require_labels: Option<BTreeMap<String, String>>,
    /// Workers that ran something with the same key lately come first.
    pub(crate) affinity: Option<String>,
    /// -128 to 127; higher first.
    pub(crate) priority: Option<i8>,
    /// `never`, `on_lost`, or an object with attempts_max, backoff, backoff_max, on.
    #[schema(value_type = Option<Object>)]
    pub(crate) retry: Option<Value>,
    /// As in `10m`.
    pub(crate) max_wait: Option<String>,
    /// `wait` or `fail`.
    pub(crate) on_unplaceable: Option<String>,
    /// `stop` or `keep`.
    pub(crate) on_disconnect: Option<String>,
    /// As in `10s`.
    pub(crate) stop_grace: Option<String>,
    /// As in `1Mi`.
    pub(crate) log_limit: Option<String>,
}

/// As people write them.
#[derive(ToSchema)]
pub(crate) struct Resources {
    /// As in `500m` or `0.5`.
    pub(crate) cpu: Option<String>,
    /// As in `128Mi`.
    pub(crate) memory: Option<String>,
    /// As in `H100:2` or `A10G:0.5`.
    pub(crate) gpu: Option<String>,
}
