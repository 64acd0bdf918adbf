//! The checks of a pool. Every error names the field, says what is wrong and what would be right.

use super::{Elastic, Machine, Pool, ProvisionerKind};
use crate::submission::{ARGS_MAX, COMMAND_BYTES_MAX, ValidationError, WAIT_MAX, check_capacity, check_labels};
use crate::{Millis, MinFree};

/// Most tenants that a pool names.
pub const POOL_TENANTS_MAX: usize = 1_000;
/// Most machines of one pool: the most workers of a cell.
pub const POOL_MACHINES_MAX: u32 = 100_000;
/// Longest time-out of a provisioner's command: while it runs, the record waits.
pub const COMMAND_TIMEOUT_MAX: Millis = Millis::from_secs(3600);

type Checked = Result<(), ValidationError>;

fn error(path: impl Into<String>, problem: impl Into<String>) -> ValidationError {
    ValidationError { path: path.into(), problem: problem.into() }
}

impl Pool {
    /// Checks all of it.
    pub fn check(&self) -> Checked {
        if self.tenants.len() > POOL_TENANTS_MAX {
            let problem = format!("{} tenants; at most {POOL_TENANTS_MAX} are allowed", self.tenants.len());
            return Err(error("tenants", problem));
        }
        self.elastic.as_ref().map_or(Ok(()), Elastic::check)
    }
}

impl Elastic {
    fn check(&self) -> Checked {
        self.machine.check()?;
        if self.max > POOL_MACHINES_MAX {
            return Err(error("max", format!("{} is too much; at most {POOL_MACHINES_MAX} are allowed", self.max)));
        }
        if self.min > self.max {
            return Err(error("min", format!("{} is more than max ({})", self.min, self.max)));
        }
        check_labels("options", &self.options)?;
        self.check_times()?;
        for (path, limit) in [("in_flight_max", self.in_flight_max), ("per_minute_max", self.per_minute_max)] {
            if limit == 0 {
                return Err(error(path, "0 would never buy anything; give at least 1, or max = 0"));
            }
        }
        self.check_warm()?;
        self.provisioner.check()
    }

    fn check_times(&self) -> Checked {
        let times = [
            ("boot_time", self.boot_time),
            ("boot_limit", self.boot_limit),
            ("idle_timeout", self.idle_timeout),
            ("fallback_after", self.fallback_after),
        ];
        for (path, time) in times {
            if time > WAIT_MAX {
                return Err(error(path, format!("{time} is too long; at most {WAIT_MAX} is allowed")));
            }
        }
        if self.boot_limit < Millis::from_secs(1) {
            return Err(error("boot_limit", format!("{} is too short; give at least 1s", self.boot_limit)));
        }
        Ok(())
    }

    /// Warm room that no machine of this kind has would be bought for again and again.
    fn check_warm(&self) -> Checked {
        let mut most = MinFree::default();
        most.add(&self.machine.capacity.all_free());
        let asked = [
            ("cpu", self.min_free.cpu.0, most.cpu.0),
            ("memory", self.min_free.memory.0, most.memory.0),
            ("slots", self.min_free.slots, most.slots),
            ("gpus", self.min_free.gpus, most.gpus),
        ];
        for (name, asked, machine) in asked {
            if asked > machine.saturating_mul(u64::from(self.max)) {
                let problem = "max machines of this kind have less than that in all; lower it, or raise max";
                return Err(error(format!("min_free.{name}"), problem));
            }
        }
        Ok(())
    }
}

impl Machine {
    fn check(&self) -> Checked {
        check_capacity("machine", &self.capacity)?;
        check_labels("machine.labels", &self.labels)?;
        if self.capacity.slots == 0 {
            return Err(error("machine.slots", "0 takes no containers; give at least 1"));
        }
        Ok(())
    }
}

impl ProvisionerKind {
    fn check(&self) -> Checked {
        let ProvisionerKind::Command { program, args, timeout } = self else { return Ok(()) };
        if program.is_empty() || program.len() > COMMAND_BYTES_MAX || program.contains('\0') {
            let problem = format!("give a program's path of 1 to {COMMAND_BYTES_MAX} bytes");
            return Err(error("provisioner.program", problem));
        }
        let long = |arg: &String| arg.len() > COMMAND_BYTES_MAX || arg.contains('\0');
        if args.len() > ARGS_MAX || args.iter().any(long) {
            let problem = format!("at most {ARGS_MAX} arguments of {COMMAND_BYTES_MAX} bytes are allowed");
            return Err(error("provisioner.args", problem));
        }
        if !(Millis::from_secs(1)..=COMMAND_TIMEOUT_MAX).contains(timeout) {
            let problem = format!("{timeout} is out of range; give 1s to {COMMAND_TIMEOUT_MAX}");
            return Err(error("provisioner.timeout", problem));
        }
        Ok(())
    }
}
