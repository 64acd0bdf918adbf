//! Tenants in memory: how much of each waits, its limits, and its token bucket, in whole
//! numbers: thousandths of a container, so that milliseconds times containers per second
//! count without rounding.

use std::collections::btree_map::Entry;

use volley_model::{GroupId, Millis, Rate, Tenant, TenantName, Timestamp};

use crate::SubmitRefusal;
use crate::ledger::Ledger;
use crate::state::Group;

/// A tenant with limits or waiting containers.
#[derive(Debug, Clone, Default)]
pub(crate) struct TenantEntry {
    /// Queued, delayed or claimed.
    pub(crate) waiting: u64,
    pub(crate) limits: Option<Tenant>,
    /// There while its limits have a rate. Volatile: full after a restart.
    pub(crate) bucket: Option<Bucket>,
}

impl TenantEntry {
    /// Nothing that would have to be kept.
    pub(crate) fn is_nothing(&self) -> bool {
        self.waiting == 0 && self.limits.is_none()
    }
}

/// A token bucket. A submission larger than the burst takes it below nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Thousandths of a container.
    level: i64,
    at: Timestamp,
}

/// Of one container.
const THOUSANDTHS: i64 = 1_000;

impl Bucket {
    pub(crate) fn full(rate: Rate, now: Timestamp) -> Self {
        Self { level: i64::from(rate.burst) * THOUSANDTHS, at: now }
    }

    /// As it is later.
    fn filled(self, rate: Rate, now: Timestamp) -> Self {
        let gained = now.since(self.at).0.saturating_mul(u64::from(rate.per_second));
        let level = self.level.saturating_add(i64::try_from(gained).unwrap_or(i64::MAX));
        Self { level: level.min(i64::from(rate.burst) * THOUSANDTHS), at: now.max(self.at) }
    }

    /// How long until a submission of so many is within the rate; nothing when it is.
    fn wait_for(self, rate: Rate, count: u32) -> Millis {
        let needed = i64::from(count.min(rate.burst)) * THOUSANDTHS;
        let short = u64::try_from(needed - self.level).unwrap_or(0);
        Millis(short.div_ceil(u64::from(rate.per_second)))
    }
}

impl Ledger {
    /// Whether a tenant may submit so many now; if so, they are taken from its bucket.
    pub(crate) fn admit(&mut self, tenant: &TenantName, count: u32) -> Result<(), SubmitRefusal> {
        let now = self.counters.now;
        let Some(entry) = self.tenants.get_mut(tenant) else { return Ok(()) };
        let Some(limits) = &entry.limits else { return Ok(()) };
        let (waiting, asked) = (entry.waiting, u64::from(count));
        if let Some(limit) = limits.backlog_max.filter(|limit| waiting + asked > *limit) {
            return Err(SubmitRefusal::TenantBacklogFull { tenant: tenant.clone(), waiting, limit, asked });
        }
        if let (Some(rate), Some(bucket)) = (limits.rate, &mut entry.bucket) {
            *bucket = bucket.filled(rate, now);
            let retry_after = bucket.wait_for(rate, count);
            if retry_after > Millis(0) {
                let (tenant, per_second) = (tenant.clone(), rate.per_second);
                return Err(SubmitRefusal::RateExceeded { tenant, per_second, retry_after });
            }
            bucket.level -= i64::from(count) * THOUSANDTHS;
        }
        Ok(())
    }

    /// Takes over limits; a rate that is new or another begins with a full bucket.
    pub(crate) fn set_limits(&mut self, limits: Tenant) {
        let now = self.counters.now;
        let entry = self.tenants.entry(limits.name.clone()).or_default();
        let before = entry.limits.as_ref().and_then(|limits| limits.rate);
        if limits.rate != before || entry.bucket.is_none() {
            entry.bucket = limits.rate.map(|rate| Bucket::full(rate, now));
        }
        entry.limits = Some(limits);
    }

    pub(crate) fn drop_limits(&mut self, tenant: &TenantName) {
        if let Entry::Occupied(mut entry) = self.tenants.entry(tenant.clone()) {
            (entry.get_mut().limits, entry.get_mut().bucket) = (None, None);
            if entry.get().is_nothing() {
                entry.remove();
            }
        }
    }

    /// So many more of a tenant's containers wait.
    pub(crate) fn wait_more(&mut self, tenant: &TenantName, count: u64) {
        if count == 0 {
            return;
        }
        match self.tenants.get_mut(tenant) {
            Some(entry) => entry.waiting += count,
            None => drop(self.tenants.insert(tenant.clone(), TenantEntry { waiting: count, ..TenantEntry::default() })),
        }
    }

    /// A container of a group waits again.
    pub(crate) fn wait_again(&mut self, group: GroupId) {
        let tenant = self.groups[&group].tenant.clone();
        self.wait_more(&tenant, 1);
    }

    /// A container of a group waits no more.
    pub(crate) fn wait_less(&mut self, group: GroupId) {
        let tenant = &self.groups[&group].tenant;
        let entry = self.tenants.get_mut(tenant).expect("law 12: a tenant whose container waits is known");
        entry.waiting -= 1;
        if entry.is_nothing() {
            self.tenants.remove(tenant);
        }
    }

    /// A group, if it is this tenant's; any for `None`.
    pub(crate) fn group_in(&self, id: GroupId, scope: Option<&TenantName>) -> Option<&Group> {
        self.groups.get(&id).filter(|group| scope.is_none_or(|tenant| group.tenant == *tenant))
    }
}
