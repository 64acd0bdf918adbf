//! The scripts: one for each operation and read, put together from the pieces in `lua/`. Their
//! limits are written into them, so that a call carries only what is its own.

use std::sync::OnceLock;

use volley_ledger::LedgerOptions;

/// Most items of one call of a script; more go on with a cursor. A call that touches so many takes some 10 ms, for
/// which all other calls wait.
pub const SCRIPT_ITEMS_MAX: u32 = 1_000;

macro_rules! lua {
    ($($file:literal),+) => { &[$(include_str!(concat!("lua/", $file, ".lua"))),+] };
}

/// What may run when memory is short: everything but what adds.
const GOES_ON: &str = "#!lua flags=allow-oom\n";
/// Refused by the server before it runs when memory is short.
const ADDS: &str = "#!lua\n";
const READS: &str = "#!lua flags=no-writes\n";
/// Reads with the pieces of those that write.
const READS_RECORDS: &str = "#!lua flags=no-writes\n ";

/// Pieces of every script that writes, in the order in which they use each other.
const WRITES: &[&str] = lua!("base", "feed", "queue", "waiting", "worker", "transitions", "session", "due");

macro_rules! scripts {
    ($($name:ident = $flags:ident, $pieces:expr);+ $(;)?) => {
        /// A script's name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Name { $($name),+ }

        const ALL: &[(Name, &str, &[&str])] = &[$((Name::$name, $flags, $pieces)),+];
    };
}

scripts! {
    Submit = ADDS, lua!("access", "submit");
    OpenSession = GOES_ON, lua!("open_session");
    CloseSession = GOES_ON, lua!("close_session");
    Claim = GOES_ON, lua!("pool", "fleet", "claim");
    Commit = GOES_ON, lua!("pool", "fleet", "commit");
    Attach = GOES_ON, lua!("pool", "attach");
    Heartbeat = GOES_ON, lua!("heartbeat");
    Detach = GOES_ON, lua!("lost", "detach");
    Report = GOES_ON, lua!("report");
    Stop = GOES_ON, lua!("stop");
    SetSchedulable = GOES_ON, lua!("pool", "schedulable", "set_schedulable");
    Sweep = GOES_ON, lua!("access", "lost", "sweep");
    ApplyPool = ADDS, lua!("pool", "apply_pool");
    RemovePool = GOES_ON, lua!("pool", "remove_pool");
    CreateToken = ADDS, lua!("access", "create_token");
    RevokeToken = GOES_ON, lua!("access", "revoke_token");
    ApplyTenant = ADDS, lua!("access", "apply_tenant");
    RemoveTenant = GOES_ON, lua!("access", "remove_tenant");
    LeadScaling = GOES_ON, lua!("pool", "lead", "lead_scaling");
    Provision = ADDS, lua!("pool", "lead", "provision");
    NoteMachines = GOES_ON, lua!("pool", "lost", "lead", "note_machines");
    Retire = GOES_ON, lua!("pool", "schedulable", "lead", "retire");
    Fleet = READS_RECORDS, lua!("pool", "fleet", "fleet_query");
    Scale = READS, lua!("read", "scale");
    List = READS, lua!("read", "list");
    Group = READS, lua!("read", "group");
    Prefix = READS, lua!("read", "prefix");
    Names = READS, lua!("read", "names");
    Workers = READS, lua!("read", "workers");
    Pools = READS, lua!("read", "pools");
    Events = READS, lua!("read", "events");
    Take = READS, lua!("read", "take");
    GroupTenants = READS, lua!("read", "group_tenants");
    Servers = READS, lua!("read", "servers");
    Token = READS, lua!("read", "token");
    Tokens = READS, lua!("read", "tokens");
    Tenants = READS, lua!("read", "tenants");
    Overview = READS, lua!("read", "overview");
    OverviewShapes = READS, lua!("read", "overview_shapes");
    Ahead = READS, lua!("read", "ahead");
    AuditGroups = READS, lua!("read", "audit_cell", "audit_groups");
    AuditQueues = READS, lua!("read", "audit_cell", "audit_queues");
    AuditKeys = READS, lua!("read", "audit_keys");
    AuditTokens = READS, lua!("read", "audit_tokens");
    AuditMachines = READS, lua!("read", "audit_machines");
    AuditWorkers = READS, lua!("read", "audit_workers");
}

/// A script as a server gets it.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) text: String,
    /// The hash that a server gave it; the same on every server.
    pub(super) hash: OnceLock<String>,
}

/// All scripts with the limits of one store.
#[derive(Debug)]
pub(super) struct Scripts(Vec<Source>);

impl Scripts {
    pub(super) fn new(options: &LedgerOptions, items_max: u32) -> Self {
        let limits = limits(options, items_max);
        let source = |(_, flags, own): &(Name, &'static str, &'static [&'static str])| {
            let pieces: &[&str] = if *flags == READS { &[] } else { WRITES };
            let mut text = format!("{flags}{limits}");
            for piece in pieces.iter().chain(own.iter()) {
                text.push_str(piece);
            }
            Source { text, hash: OnceLock::new() }
        };
        Self(ALL.iter().map(source).collect())
    }

    pub(super) fn get(&self, name: Name) -> &Source {
        let at = ALL.iter().position(|(other, ..)| *other == name).expect("every name is in the table");
        &self.0[at]
    }

    /// All there are.
    pub(super) fn names() -> impl Iterator<Item = Name> {
        ALL.iter().map(|(name, ..)| *name)
    }

    /// Whether a script changes nothing.
    pub(super) fn reads(name: Name) -> bool {
        ALL.iter().any(|(other, flags, _)| *other == name && [READS, READS_RECORDS].contains(flags))
    }
}

fn limits(options: &LedgerOptions, items_max: u32) -> String {
    let limits: [(&str, u64); 22] = [
        ("worker_lease", options.worker_lease.0),
        ("session_lease", options.session_lease.0),
        ("key_retention", options.key_retention.0),
        ("backlog_max", options.backlog_max),
        ("workers_max", options.workers_max.into()),
        ("finished_containers_max", options.finished_containers_max),
        ("finished_age_max", options.finished_age_max.0),
        ("events_max", options.events_max),
        ("events_age_max", options.events_age_max.0),
        ("lost_worker_age_max", options.lost_worker_age_max.0),
        ("kept_attempt_age_max", options.kept_attempt_age_max.0),
        ("recheck_max", options.recheck_max as u64),
        ("claim_containers_max", options.claim_containers_max.min(SCRIPT_ITEMS_MAX).into()),
        ("affinity_keys_max", options.affinity_keys_max as u64),
        ("tombstones_max", options.tombstones_max as u64),
        ("take_deliveries_max", options.take_deliveries_max as u64),
        ("tenants_max", options.tenants_max.into()),
        ("tokens_max", options.tokens_max.into()),
        ("token_record_age_max", options.token_record_age_max.0),
        ("scale_lease", options.scale_lease.0),
        ("failing_specs_max", options.failing_specs_max as u64),
        ("script_items_max", items_max.into()),
    ];
    let limits: Vec<String> = limits.iter().map(|(name, limit)| format!("{name} = {limit}")).collect();
    format!("local OPT = {{ {} }}\n", limits.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = include_str!("../../../../docs/redis.md");

    #[test]
    fn every_key_that_scripts_name_is_in_the_docs() {
        let mut keys = 0;
        for (name, _, own) in ALL {
            for piece in own.iter().chain(WRITES) {
                for rest in piece.split("P .. '").skip(1) {
                    let key = rest.split(['\'', ':']).next().unwrap_or_default();
                    let told = DOCS.contains(&format!("`{key}`")) || DOCS.contains(&format!("`{key}:"));
                    assert!(told, "{name:?} names a key that docs/redis.md does not: {key}");
                    keys += 1;
                }
            }
        }
        assert!(keys > 100, "they are found: {keys}");
    }
}
