//! What the loops count: which of the metrics' labels a claim, a refusal, a report or an end
//! has. Knows nothing of how metrics are shown.

use volley_ledger::{MachineSaid, Order, ProvisionRefusal, SweepReply, Taken, Verdict};
use volley_metrics::{ScaleMetrics, TurnMetrics, WorkMetrics};
use volley_model::{Claimed, FleetChanges, Outcome, Progress, Refusal, RetireCause, Timestamp};
use volley_pools::ProvisionError;

use crate::ControlError;

/// The label of a refusal.
pub(crate) fn refusal(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::ClaimLost => "claim_lost",
        Refusal::WorkerGone => "worker_gone",
        Refusal::RevisionChanged => "revision_changed",
        Refusal::NotReady => "not_ready",
        Refusal::NoCapacity => "no_capacity",
        Refusal::Held => "held",
    }
}

/// A claim's changes of the fleet view.
pub(crate) fn on_changes(metrics: &TurnMetrics, changes: &FleetChanges) {
    let workers = changes.workers.len() + changes.workers_gone.len();
    let pools = changes.pools.len() + changes.pools_gone.len();
    let shapes = changes.blocked.len() + changes.unblocked.len();
    let used = match (changes.reload, workers + pools + shapes) {
        (true, _) => "reloaded",
        (false, 0) => "hit",
        (false, _) => "updated",
    };
    metrics.view_uses.add_one([used]);
    if !changes.reload {
        for (record, count) in [("worker", workers), ("pool", pools), ("shape", shapes)] {
            if count > 0 {
                metrics.view_changes.add([record], count as u64);
            }
        }
    }
}

/// A container was placed: how long it had waited.
pub(crate) fn on_placed(metrics: &TurnMetrics, container: &Claimed, now: Timestamp) {
    metrics.queue_wait.observe([], now.since(container.since).to_duration());
}

/// Reports and their verdicts.
pub(crate) fn on_report(metrics: &WorkMetrics, progress: &Progress, verdict: Verdict) {
    let word = match progress {
        Progress::Accepted => "accepted",
        Progress::Running => "running",
        Progress::Ended(_) => "ended",
    };
    let kept = verdict == Verdict::Keep;
    metrics.reports.add_one([word, if kept { "keep" } else { "kill" }]);
    if let (Progress::Ended(outcome), true) = (progress, kept) {
        metrics.ended.add_one([ended(outcome)]);
    }
}

/// The label of an end.
fn ended(outcome: &Outcome) -> &'static str {
    match outcome {
        outcome if outcome.is_success() => "success",
        Outcome::Exited { .. } => "exited",
        Outcome::Stopped { .. } => "stopped",
        Outcome::Lost => "lost",
        Outcome::Failed { .. } | Outcome::Expired | Outcome::Unplaceable { .. } => "failed",
    }
}

/// What a sweep found.
pub(crate) fn on_sweep(metrics: &WorkMetrics, reply: &SweepReply) {
    if reply.left {
        return;
    }
    metrics.sweeps.add_one();
    let found = [
        ("sessions_ended", reply.sessions_ended),
        ("workers_lost", reply.workers_lost.len() as u32),
        ("expired", reply.expired),
        ("retries_ready", reply.ready),
        ("pruned", reply.pruned),
    ];
    for (what, count) in found.into_iter().filter(|(_, count)| *count > 0) {
        metrics.swept.add([what], u64::from(count));
    }
}

/// Orders handed to workers' streams.
pub(crate) fn on_taken(metrics: &WorkMetrics, taken: &[Taken]) {
    let orders = || taken.iter().flat_map(|taken| &taken.deliveries);
    let starts = orders().filter(|delivery| matches!(delivery.order, Order::Start { .. })).count();
    let stops = orders().count() - starts;
    for (order, count) in [("start", starts), ("stop", stops)] {
        if count > 0 {
            metrics.deliveries.add([order], count as u64);
        }
    }
}

/// A submission was answered.
pub(crate) fn on_submit(metrics: &WorkMetrics, answer: &Result<volley_ledger::SubmitReply, ControlError>) {
    let result = match answer {
        Ok(reply) if reply.repeated => "repeated",
        Ok(reply) => {
            metrics.submitted.add(u64::from(reply.count));
            "accepted"
        }
        Err(ControlError::Store(_)) => "failed",
        Err(_) => "refused",
    };
    metrics.submissions.add_one([result]);
}

/// Records of machines were written, or not.
pub(crate) fn on_purchase(metrics: &ScaleMetrics, verdicts: &[Result<(), ProvisionRefusal>]) {
    let bought = verdicts.iter().filter(|verdict| verdict.is_ok()).count();
    for (what, count) in [("bought", bought), ("refused", verdicts.len() - bought)] {
        if count > 0 {
            metrics.machines.add([what], count as u64);
        }
    }
}

/// A provisioner said what became of a machine.
pub(crate) fn on_machine(metrics: &ScaleMetrics, said: &MachineSaid) {
    metrics.machines.add_one([match said {
        MachineSaid::Created { .. } => "made",
        MachineSaid::Failed { .. } => "failed",
        MachineSaid::Destroyed => "destroyed",
    }]);
}

/// The label of why a machine is given up.
pub(crate) fn given_up(why: RetireCause) -> &'static str {
    match why {
        RetireCause::Idle => "idle",
        RetireCause::BootLimit => "boot_limit",
        RetireCause::Lost => "lost",
        RetireCause::Drained => "drained",
        RetireCause::Quarantined => "quarantined",
    }
}

/// The label of how a call to a provisioner ended.
pub(crate) fn called<T>(answer: &Result<T, ProvisionError>) -> &'static str {
    match answer {
        Ok(_) => "done",
        Err(ProvisionError::Refused { .. }) => "refused",
        Err(ProvisionError::Unknown { .. }) => "unknown",
    }
}
