//! Limits of CPU and memory by control groups, version 1 and 2: one group for each attempt in
//! each hierarchy. Where the system does not allow it, that is said in notes and nothing fails.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use volley_model::{Bytes, ContainerId, CpuMilli, Resources, WorkerId};

use crate::Usage;

/// The kernel gives a group its CPU in periods of this many microseconds.
const PERIOD_US: u64 = 100_000;
/// The kernel takes no smaller quota of a period.
const QUOTA_MIN_US: u64 = 1_000;
/// What does not end when killed is waited for so long before its group is left behind.
const EMPTY_WAIT: Duration = Duration::from_secs(2);

/// Where groups can be made, for what.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Hierarchies {
    /// Version 2, with both controllers.
    unified: Option<PathBuf>,
    /// Version 1.
    memory: Option<PathBuf>,
    cpu: Option<PathBuf>,
    notes: Vec<String>,
}

/// A mounted hierarchy and this process's place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    /// `None` for version 2.
    controllers: Option<String>,
    place: PathBuf,
}

/// What limits this machine allows; looked at once.
pub(crate) fn hierarchies() -> &'static Hierarchies {
    static FOUND: OnceLock<Hierarchies> = OnceLock::new();
    FOUND.get_or_init(|| {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        probe(&mounted(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup")))
    })
}

/// What cannot be enforced on this machine, in words; empty when all can.
#[must_use]
pub fn limits_notes() -> Vec<String> {
    hierarchies().notes.clone()
}

/// The roots of all hierarchies that are mounted, whatever they are for.
pub(crate) fn roots() -> &'static [PathBuf] {
    static FOUND: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let root = |line: &str| {
            let (head, tail) = line.split_once(" - ")?;
            let kind = tail.split(' ').next()?;
            matches!(kind, "cgroup" | "cgroup2").then(|| head.split(' ').nth(4).map(PathBuf::from))?
        };
        mountinfo.lines().filter_map(root).collect()
    })
}

/// Version 2 alone is mounted.
pub(crate) fn is_unified() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Memory and swap together can be limited.
pub(crate) fn limits_swap() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let version_1 = |root: &PathBuf| root.join("memory.memsw.limit_in_bytes").exists();
        let swap = fs::read_to_string("/proc/swaps").unwrap_or_default().lines().count() > 1;
        roots().iter().any(version_1) || (is_unified() && swap)
    })
}

/// The kernel's words for an amount of CPU: so many microseconds in each period.
pub(crate) fn quota(cpu: CpuMilli) -> (u64, u64) {
    ((cpu.0.saturating_mul(PERIOD_US) / 1000).max(QUOTA_MIN_US), PERIOD_US)
}

/// Reads the kernel's lists of mounts and of this process's groups.
fn mounted(mountinfo: &str, own: &str) -> Vec<Mounted> {
    let own_path = |controller: Option<&str>| {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let this = controller.map_or(names.is_empty(), |controller| names.split(',').any(|n| n == controller));
            this.then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let mount = |line: &str| {
        let (head, tail) = line.split_once(" - ")?;
        let point = PathBuf::from(head.split(' ').nth(4)?);
        let mut tail = tail.split(' ');
        let (kind, options) = (tail.next()?, tail.nth(1)?);
        let controllers = match kind {
            "cgroup2" => None,
            "cgroup" => Some(options.to_owned()),
            _ => return None,
        };
        let first = controllers.as_deref().map(|options| {
            options.split(',').find(|option| matches!(*option, "memory" | "cpu")).unwrap_or_default().to_owned()
        });
        if first.as_deref() == Some("") {
            return None;
        }
        let place = point.join(own_path(first.as_deref()).unwrap_or_default());
        // In a namespace of its own a process may be told a path that is not there.
        let place = if place.is_dir() || !point.is_dir() { place } else { point };
        Some(Mounted { controllers, place })
    };
    mountinfo.lines().filter_map(mount).collect()
}

fn probe(mounted: &[Mounted]) -> Hierarchies {
    let mut found = Hierarchies::default();
    let mut problems = Vec::new();
    for mount in mounted {
        let tried = match &mount.controllers {
            None => unified(&mount.place),
            Some(_) => made(&mount.place, "probe"),
        };
        match (tried, &mount.controllers) {
            (Ok(base), None) => found.unified = Some(base),
            (Ok(base), Some(options)) => {
                for option in options.split(',') {
                    match option {
                        "memory" => found.memory = Some(base.clone()),
                        "cpu" => found.cpu = Some(base.clone()),
                        _ => {}
                    }
                }
            }
            (Err(error), _) => problems.push(format!("{}: {error}", mount.place.display())),
        }
    }
    let why = if problems.is_empty() { "no cgroups are mounted".to_owned() } else { problems.join("; ") };
    let missing =
        |what: &str, there: bool| (!there).then(|| format!("{what} limits are counted, not enforced ({why})"));
    let both = found.unified.is_some();
    found.notes.extend(missing("memory", both || found.memory.is_some()));
    found.notes.extend(missing("CPU", both || found.cpu.is_some()));
    found
}

/// Tries a group out and gives the folder that groups are made in.
fn made(place: &Path, name: &str) -> io::Result<PathBuf> {
    let base = place.join("volley");
    let probe = base.join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&probe)?;
    fs::remove_dir(&probe)?;
    Ok(base)
}

/// Version 2: both controllers must be there, and be handed down to the groups of containers.
fn unified(place: &Path) -> io::Result<PathBuf> {
    let has = fs::read_to_string(place.join("cgroup.controllers"))?;
    for controller in ["memory", "cpu"] {
        if !has.split_whitespace().any(|name| name == controller) {
            return Err(io::Error::other(format!("no {controller} controller here")));
        }
    }
    let hand_down = |place: &Path| fs::write(place.join("cgroup.subtree_control"), "+memory +cpu");
    if hand_down(place).is_err() {
        // A group that hands down holds no processes itself: this one goes into a group beside its containers.
        let own = place.join("volley-worker");
        fs::create_dir_all(&own)?;
        fs::write(own.join("cgroup.procs"), std::process::id().to_string())?;
        hand_down(place)?;
    }
    let base = made(place, "probe")?;
    hand_down(&base)?;
    Ok(base)
}

impl Hierarchies {
    /// The groups of an attempt: noted before they are made, so that whoever comes after a crash knows of them.
    pub(crate) fn plan(
        &self,
        worker: &WorkerId,
        container: ContainerId,
        attempt: u32,
        resources: &Resources,
    ) -> Vec<PathBuf> {
        let name = format!("{worker}.{container}.{attempt}");
        if let Some(base) = &self.unified {
            return vec![base.join(name)];
        }
        let memory = self.memory.as_ref().filter(|_| resources.memory.0 > 0);
        let cpu = self.cpu.as_ref().filter(|_| resources.cpu.0 > 0);
        memory.into_iter().chain(cpu).map(|base| base.join(&name)).collect()
    }
}

/// Makes an attempt's groups with its limits. What cannot be made is left out: the notes said so, or the machine is in
/// trouble that the container's own end will tell.
pub(crate) fn make(groups: &[PathBuf], resources: &Resources) {
    let (quota, _) = quota(resources.cpu);
    let memory = resources.memory.0;
    for group in groups {
        let made = group.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| create(group));
        if let Err(error) = made {
            tracing::debug!(group = %group.display(), %error, "a group is not made");
            continue;
        }
        // Each hierarchy has its own files.
        if memory > 0 {
            set(group, "memory.max", &memory.to_string());
            set(group, "memory.swap.max", "0");
            set(group, "memory.limit_in_bytes", &memory.to_string());
            set(group, "memory.memsw.limit_in_bytes", &memory.to_string());
        }
        if resources.cpu.0 > 0 {
            set(group, "cpu.max", &format!("{quota} {PERIOD_US}"));
            set(group, "cpu.cfs_period_us", &PERIOD_US.to_string());
            set(group, "cpu.cfs_quota_us", &quota.to_string());
        }
    }
}

/// A group that an earlier life left is taken over.
fn create(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Not every kernel has every file (swap accounting may be off).
fn set(group: &Path, file: &str, value: &str) {
    if let Err(error) = try_set(group, file, value) {
        tracing::debug!(group = %group.display(), file, %error, "a limit is not set");
    }
}

fn try_set(group: &Path, file: &str, value: &str) -> io::Result<()> {
    let mut opened = fs::OpenOptions::new().write(true).open(group.join(file))?;
    io::Write::write_all(&mut opened, value.as_bytes())
}

/// Bounds the CPU of groups that another program made.
///
/// # Errors
/// When none of them takes it.
pub(crate) fn limit_cpu(groups: &[PathBuf], cpu: CpuMilli) -> io::Result<()> {
    let (quota, period) = quota(cpu);
    let mut limited = Err(io::Error::from(io::ErrorKind::NotFound));
    for group in groups {
        // Each version has its own file; one hierarchy of several has it.
        for (file, value) in [("cpu.max", format!("{quota} {period}")), ("cpu.cfs_quota_us", quota.to_string())] {
            match try_set(group, file, &value) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => limited = done,
            }
        }
    }
    limited
}

/// Moves this process into groups; gives where it was.
pub(crate) fn enter(groups: &[PathBuf]) -> Vec<PathBuf> {
    if groups.is_empty() {
        return Vec::new();
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let home = mounted(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    for group in groups {
        let _ = fs::write(group.join("cgroup.procs"), "0");
    }
    home.into_iter().map(|mount| mount.place).collect()
}

/// Moves this process back.
pub(crate) fn go_home(home: &[PathBuf]) {
    for place in home {
        let _ = fs::write(place.join("cgroup.procs"), "0");
    }
}

fn processes(group: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok().and_then(Pid::from_raw)).collect()
}

/// Kills whatever is in the groups, also what left its process group.
pub(crate) fn kill(groups: &[PathBuf]) {
    for group in groups {
        for pid in processes(group) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Empties and removes the groups.
pub(crate) fn remove(groups: &[PathBuf]) {
    let until = Instant::now() + EMPTY_WAIT;
    for group in groups {
        while group.is_dir() && fs::remove_dir(group).is_err() && Instant::now() < until {
            kill(std::slice::from_ref(group));
            // The kernel takes a moment to bury them; there is nothing to wait on in version 1.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether the kernel killed something in the groups for want of memory.
pub(crate) fn was_out_of_memory(groups: &[PathBuf]) -> bool {
    groups.iter().any(|group| {
        ["memory.events", "memory.oom_control"].iter().any(|file| {
            let text = fs::read_to_string(group.join(file)).unwrap_or_default();
            text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
        })
    })
}

/// What the processes in the groups use and have used; `None` when no group counts it.
pub(crate) fn usage(groups: &[PathBuf]) -> Option<Usage> {
    let number = |file: &str| {
        let text = groups.iter().find_map(|group| fs::read_to_string(group.join(file)).ok());
        text.and_then(|text| text.trim().parse::<u64>().ok())
    };
    let either = |one: &str, other: &str| number(one).or_else(|| number(other));
    let stat = groups.iter().find_map(|group| fs::read_to_string(group.join("cpu.stat")).ok()).unwrap_or_default();
    let unified = stat.lines().find_map(|line| line.strip_prefix("usage_usec ")?.trim().parse().ok());
    let cpu_us = unified.or_else(|| number("cpuacct.usage").map(|ns| ns / 1000));
    let peak = either("memory.peak", "memory.max_usage_in_bytes");
    let now = either("memory.current", "memory.usage_in_bytes");
    cpu_us.or(peak).or(now)?;
    let memory = Bytes(now.unwrap_or_default());
    let memory_peak = Bytes(peak.unwrap_or_default()).max(memory);
    Some(Usage { cpu_us: cpu_us.unwrap_or_default(), memory, memory_peak })
}

/// The memory that the groups above this process allow it, if any limits it; and CPU in thousandths of a core.
pub(crate) fn own_limits() -> (Option<u64>, Option<u64>) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (mut memory, mut cpu): (Option<u64>, Option<u64>) = (None, None);
    let lower = |kept: &mut Option<u64>, found: Option<u64>| {
        if let Some(found) = found {
            *kept = Some(kept.map_or(found, |kept| kept.min(found)));
        }
    };
    for mount in mounted(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup")) {
        for place in mount.place.ancestors() {
            let number = |file: &str| fs::read_to_string(place.join(file)).ok()?.trim().parse::<u64>().ok();
            lower(&mut memory, number("memory.max"));
            lower(&mut memory, number("memory.limit_in_bytes"));
            let quota = fs::read_to_string(place.join("cpu.max")).ok().and_then(|text| quota_milli(&text));
            lower(&mut cpu, quota);
            if let (Some(quota), Some(period)) = (number("cpu.cfs_quota_us"), number("cpu.cfs_period_us")) {
                lower(&mut cpu, (period > 0).then(|| quota * 1000 / period));
            }
        }
    }
    (memory, cpu)
}

/// `cpu.max` as thousandths of a core; `None` for no limit.
fn quota_milli(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota * 1000 / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_both_versions_are_found() {
        let hybrid = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /nowhere/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /nowhere/memory rw,relatime shared:9 - cgroup cgroup rw,memory
37 31 0:34 / /nowhere/freezer rw,relatime - cgroup cgroup rw,freezer
41 31 0:38 / /nowhere/unified rw,relatime - cgroup2 cgroup2 rw";
        let own = "4:memory:/a/b\n1:cpu,cpuacct:/\n0::/c";
        let places: Vec<_> = mounted(hybrid, own).into_iter().map(|m| (m.controllers, m.place)).collect();
        let expected = [
            (Some("rw,cpu".to_owned()), PathBuf::from("/nowhere/cpu/")),
            (Some("rw,memory".to_owned()), PathBuf::from("/nowhere/memory/a/b")),
            (None, PathBuf::from("/nowhere/unified/c")),
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn what_cannot_be_enforced_is_said() {
        let found = probe(&[]);
        assert_eq!(found.notes.len(), 2);
        assert!(found.notes[0].starts_with("memory limits are counted, not enforced (no cgroups"), "{found:?}");
        let place = PathBuf::from("/proc/no-groups-here");
        let found = probe(&[Mounted { controllers: Some("rw,memory".to_owned()), place }]);
        assert!(found.notes[0].contains("/proc/no-groups-here"), "{found:?}");
    }

    /// What the kernel has in a group of version 2, as plain files.
    fn group_of_version_2(dir: &Path, name: &str) -> PathBuf {
        let group = dir.join(name);
        fs::create_dir_all(&group).expect("the folder is ours");
        for (file, text) in [
            ("cgroup.procs", ""),
            ("memory.max", ""),
            ("memory.swap.max", ""),
            ("memory.current", "4096\n"),
            ("memory.peak", "8192\n"),
            ("memory.events", "low 0\noom 2\noom_kill 1\n"),
            ("cpu.max", ""),
            ("cpu.stat", "usage_usec 1234\nnr_throttled 0\n"),
        ] {
            fs::write(group.join(file), text).expect("the folder is ours");
        }
        group
    }

    #[test]
    fn version_2_is_one_group_with_both_limits() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = dir.path().to_owned();
        fs::write(place.join("cgroup.controllers"), "cpuset cpu io memory pids\n").expect("the folder is ours");
        fs::create_dir(place.join("volley")).expect("the folder is ours");
        let found = probe(&[Mounted { controllers: None, place: place.clone() }]);
        assert_eq!((found.unified.as_ref(), &found.notes), (Some(&place.join("volley")), &Vec::new()), "{found:?}");
        let handed_down = fs::read_to_string(place.join("volley/cgroup.subtree_control")).expect("it was written");
        assert_eq!(handed_down, "+memory +cpu");
        let worker = WorkerId::new("w").expect("a name");
        let resources = Resources { cpu: CpuMilli(500), memory: Bytes(64 << 20), gpu: None };
        let container = ContainerId { group: volley_model::GroupId(1), index: 0 };
        let planned = found.plan(&worker, container, 1, &resources);
        let [group] = &planned[..] else { panic!("one group: {planned:?}") };
        let group =
            group_of_version_2(group.parent().expect("below volley"), group.file_name().unwrap().to_str().unwrap());
        make(&planned, &resources);
        let read = |file: &str| fs::read_to_string(group.join(file)).expect("a file of the group");
        assert_eq!((read("memory.max").as_str(), read("memory.swap.max").as_str()), ("67108864", "0"));
        assert_eq!(read("cpu.max"), "50000 100000");
        assert!(was_out_of_memory(&planned));
        let used = usage(&planned).expect("it is counted");
        assert_eq!(used, Usage { cpu_us: 1234, memory: Bytes(4096), memory_peak: Bytes(8192) });
        fs::write(place.join("cgroup.controllers"), "cpu\n").expect("the folder is ours");
        let found = probe(&[Mounted { controllers: None, place }]);
        assert!(found.notes[0].contains("no memory controller here"), "{found:?}");
    }

    #[test]
    fn quotas_are_read() {
        for (text, expected) in
            [("max 100000\n", None), ("50000 100000\n", Some(500)), ("200000 100000", Some(2000)), ("", None)]
        {
            assert_eq!(quota_milli(text), expected, "{text:?}");
        }
    }
}
