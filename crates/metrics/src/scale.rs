//! The metrics of machines: what was bought, what became of it, and how well provisioners do.

use crate::instruments::{Counts, Histograms, Values};
use crate::table::Table;

/// What this server did as the one that buys.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct ScaleMetrics {
    pub looks: Histograms<1>,
    pub machines: Counts<1>,
    pub given_up: Counts<1>,
    pub calls: Histograms<2>,
}

impl ScaleMetrics {
    pub(crate) fn register(table: &mut Table) -> Self {
        Self {
            looks: table.seconds(
                "scale_look",
                [("part", "plan, all")],
                "Time of a look at the fleet's size by the server that leads: the plan alone, and with its store calls.",
            ),
            machines: table.counts(
                "scale_machines",
                [("what", "bought, refused, made, failed, destroyed, unknown")],
                "Machines by what became of them: records written; purchases that the store refused; made by a \
                 provisioner; not made, as it said; destroyed; found in its list without a record, and destroyed.",
            ),
            given_up: table.counts(
                "scale_given_up",
                [("why", "idle, boot_limit, lost, drained, quarantined")],
                "Machines given up, by why.",
            ),
            calls: table.seconds(
                "provisioner_call",
                [("call", "create, destroy, list"), ("result", "done, refused, unknown")],
                "Time of calls to provisioners.",
            ),
        }
    }
}

/// Machines of the whole cell, set at each read.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct MachineMetrics {
    pub machines: Values<2>,
    pub cost_per_hour: Values<1>,
    pub oldest_boot: Values<1>,
    pub pools_failing: Values<2>,
    pub workers_quarantined: Values<1>,
}

impl MachineMetrics {
    pub(crate) fn register(table: &mut Table) -> Self {
        let pool = ("pool", "its name");
        Self {
            machines: table.values(
                "machines",
                "",
                [pool, ("stage", "requested, booting, registered, draining, destroying")],
                "Bought machines by pool and stage.",
            ),
            cost_per_hour: table.values(
                "machines_cost_per_hour",
                "",
                [pool],
                "What a pool's machines cost in an hour, in its own currency.",
            ),
            oldest_boot: table.values(
                "machines_oldest_boot",
                "seconds",
                [pool],
                "How long the machine that is longest on its way has been; none when none is.",
            ),
            pools_failing: table.values(
                "pools_failing",
                "",
                [pool, ("state", "waits, quarantined")],
                "1 for a pool that buys nothing (or, in quarantine, one machine) after failures.",
            ),
            workers_quarantined: table.values(
                "workers_quarantined",
                "",
                [pool],
                "Machines whose workers are cordoned because they failed several different specs in a row.",
            ),
        }
    }
}
