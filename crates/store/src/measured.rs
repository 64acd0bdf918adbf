//! A store that notes how long each call took and which failed. Knows nothing of the store it
//! wraps.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use volley_ledger::{Answer, Hint, Operation, Query, Reply};
use volley_metrics::StoreMetrics;

use crate::{Store, StoreError, StoreFuture, StoreStats};

/// Any store, measured.
pub struct MeasuredStore {
    inner: Arc<dyn Store>,
    metrics: StoreMetrics,
}

impl MeasuredStore {
    /// Counts the calls of a store from now on.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, metrics: StoreMetrics) -> Self {
        Self { inner, metrics }
    }

    fn measured<'a, T: Send + 'a>(&'a self, call: &'static str, made: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        Box::pin(async move {
            let started = Instant::now();
            let answer = made.await;
            self.metrics.calls.observe([call], started.elapsed());
            if let Err(error) = &answer {
                let error = match error {
                    StoreError::Unknown { .. } => "unknown",
                    StoreError::Unavailable { .. } => "unavailable",
                    StoreError::NoCopy { .. } => "no_copy",
                    StoreError::Closed => "closed",
                };
                self.metrics.errors.add_one([call, error]);
            }
            answer
        })
    }
}

impl Store for MeasuredStore {
    fn apply(&self, operation: Operation) -> StoreFuture<'_, Reply> {
        self.measured(operation_name(&operation), self.inner.apply(operation))
    }

    fn read(&self, query: Query) -> StoreFuture<'_, Answer> {
        self.measured(query_name(&query), self.inner.read(query))
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.inner.hints()
    }

    fn backup(&self, file: PathBuf) -> StoreFuture<'_, ()> {
        self.measured("backup", self.inner.backup(file))
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    fn take_interval(&self) -> Option<Duration> {
        self.inner.take_interval()
    }

    fn incarnation(&self) -> u64 {
        self.inner.incarnation()
    }

    fn warnings(&self) -> Vec<String> {
        self.inner.warnings()
    }
}

fn operation_name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Submit(_) => "submit",
        Operation::OpenSession(_) => "open_session",
        Operation::CloseSession(_) => "close_session",
        Operation::Claim(_) => "claim",
        Operation::Commit(_) => "commit",
        Operation::Attach(_) => "attach",
        Operation::Heartbeat(_) => "heartbeat",
        Operation::Detach(_) => "detach",
        Operation::Report(_) => "report",
        Operation::Stop(_) => "stop",
        Operation::SetSchedulable(_) => "set_schedulable",
        Operation::Sweep(_) => "sweep",
        Operation::ApplyPool(_) => "apply_pool",
        Operation::RemovePool(_) => "remove_pool",
        Operation::CreateToken(_) => "create_token",
        Operation::RevokeToken(_) => "revoke_token",
        Operation::ApplyTenant(_) => "apply_tenant",
        Operation::RemoveTenant(_) => "remove_tenant",
        Operation::LeadScaling(_) => "lead_scaling",
        Operation::Provision(_) => "provision",
        Operation::NoteMachines(_) => "note_machines",
        Operation::Retire(_) => "retire",
    }
}

fn query_name(query: &Query) -> &'static str {
    match query {
        Query::Container(..) => "container",
        Query::Group(..) => "group",
        Query::Prefix(..) => "prefix",
        Query::List(_) => "list",
        Query::Workers { .. } => "workers",
        Query::Pools => "pools",
        Query::Servers { .. } => "servers",
        Query::Events { .. } => "events",
        Query::Token(_) => "token",
        Query::Tokens { .. } => "tokens",
        Query::Tenants { .. } => "tenants",
        Query::Take(_) => "take",
        Query::Audit => "audit",
        Query::Overview { .. } => "overview",
        Query::Fleet { .. } => "fleet",
        Query::Scale => "scale",
    }
}
