//! The bundle's configuration: what a container may do and see. Closed by default; the list of
//! what is open is in docs/containers.md.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capability, Hook, HookBuilder, HooksBuilder, Linux, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxCpuBuilder,
    LinuxDevice, LinuxDeviceBuilder, LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType, LinuxMemoryBuilder,
    LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
    Mount, MountBuilder, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use volley_model::{Mount as Asked, Network, Resources};

use super::cdi::{DeviceNode, EditHook};
use super::user::User;
use super::{OciLaunch, seccomp};
use crate::runtime::attempt_dir::LaunchRecord;
use crate::runtime::cgroup;

/// Where commands are looked for when the image does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What root in a container may do of what root may: see docs/containers.md. Nobody else may any of it.
const CAPABILITIES: [Capability; 8] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::Setgid,
    Capability::Setuid,
];
/// Paths that tell of the machine, or steer it: not to be seen.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Paths that are only to be read.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Files of the machine that a container on its network is shown.
const HOST_NETWORK_FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];
/// Longest host name.
const HOSTNAME_BYTES_MAX: usize = 63;

/// As `features` of runtimes names them.
pub(super) fn capability_names() -> Vec<String> {
    let names = serde_json::to_value(CAPABILITIES).and_then(serde_json::from_value);
    names.expect("capabilities are written as texts")
}

type Built<T> = Result<T, OciSpecError>;

/// The words to run: the spec's, else the image's.
pub(super) fn words(launch: &LaunchRecord, oci: &OciLaunch) -> Vec<String> {
    let (spec, image) = (&launch.spec, &oci.config);
    if !spec.command.is_empty() {
        return std::iter::once(&spec.command).chain(&spec.args).cloned().collect();
    }
    let args = if spec.args.is_empty() { &image.cmd } else { &spec.args };
    image.entrypoint.iter().chain(args).cloned().collect()
}

/// The whole configuration.
pub(super) fn spec(launch: &LaunchRecord, oci: &OciLaunch, user: &User, rootfs: &Path) -> Built<Spec> {
    let sandbox = &launch.spec.sandbox;
    let root = RootBuilder::default().path(rootfs).readonly(sandbox.read_only).build()?;
    let mut hostname = launch.container.to_string();
    hostname.truncate(HOSTNAME_BYTES_MAX);
    let hooks = &oci.devices.hooks;
    let named = |name: &str| hooks.iter().filter(|hook| hook.hook_name == name).map(hook).collect::<Built<Vec<Hook>>>();
    let hooks = HooksBuilder::default()
        .create_runtime(named("createRuntime")?)
        .create_container(named("createContainer")?)
        .start_container(named("startContainer")?)
        .poststart(named("poststart")?)
        .poststop(named("poststop")?);
    SpecBuilder::default()
        .version("1.0.2")
        .root(root)
        .hostname(hostname)
        .process(process(launch, oci, user)?)
        .mounts(mounts(launch, oci)?)
        .hooks(hooks.build()?)
        .linux(linux(launch, oci)?)
        .build()
}

fn hook(hook: &EditHook) -> Built<Hook> {
    let builder = HookBuilder::default().path(&hook.path).args(hook.args.clone()).env(hook.env.clone());
    match hook.timeout {
        Some(timeout) => builder.timeout(timeout).build(),
        None => builder.build(),
    }
}

pub(super) fn process(launch: &LaunchRecord, oci: &OciLaunch, user: &User) -> Built<Process> {
    let dir = launch.spec.working_dir.as_deref().unwrap_or(&oci.config.working_dir);
    let all: HashSet<Capability> = CAPABILITIES.into_iter().collect();
    let effective = if user.uid == 0 { all.clone() } else { HashSet::new() };
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(all)
        .permitted(effective.clone())
        .effective(effective)
        .inheritable(HashSet::new())
        .ambient(HashSet::new());
    let identity = UserBuilder::default().uid(user.uid).gid(user.gid).additional_gids(user.groups.clone());
    ProcessBuilder::default()
        .terminal(false)
        .user(identity.build()?)
        .args(words(launch, oci))
        .env(environment(launch, oci, user))
        .cwd(if dir.is_empty() { "/" } else { dir })
        .capabilities(capabilities.build()?)
        .rlimits(Vec::new())
        .no_new_privileges(true)
        .build()
}

/// The image's, then the devices', then the spec's, then our own; the last one counts.
fn environment(launch: &LaunchRecord, oci: &OciLaunch, user: &User) -> Vec<String> {
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    let home = format!("HOME={}", user.home.as_deref().unwrap_or("/"));
    let pairs = [DEFAULT_PATH, &home].into_iter();
    for pair in pairs.chain(oci.config.env.iter().map(String::as_str)).chain(oci.devices.env.iter().map(String::as_str))
    {
        if let Some((key, value)) = pair.split_once('=') {
            env.insert(key.to_owned(), value.to_owned());
        }
    }
    env.extend(launch.spec.env.clone());
    env.extend(launch.own_env().map(|(key, value)| (key.to_owned(), value)));
    env.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn mount(kind: &str, source: &str, target: &str, options: &str) -> Built<Mount> {
    let options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
    MountBuilder::default().typ(kind).source(source).destination(target).options(options).build()
}

fn mounts(launch: &LaunchRecord, oci: &OciLaunch) -> Built<Vec<Mount>> {
    let memory = launch.spec.resources.memory.0;
    // What lies in them counts as the container's memory; this only keeps the message clear.
    let limit = if memory > 0 { format!(" size={memory}") } else { String::new() };
    let mut mounts = vec![
        mount("proc", "proc", "/proc", "nosuid noexec nodev")?,
        mount("tmpfs", "tmpfs", "/dev", "nosuid strictatime mode=755 size=65536k")?,
        mount("devpts", "devpts", "/dev/pts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5")?,
        mount("tmpfs", "shm", "/dev/shm", "nosuid noexec nodev mode=1777 size=65536k")?,
        mount("mqueue", "mqueue", "/dev/mqueue", "nosuid noexec nodev")?,
        mount("sysfs", "sysfs", "/sys", "nosuid noexec nodev ro")?,
        mount("tmpfs", "tmpfs", "/tmp", &format!("nosuid nodev mode=1777{limit}"))?,
    ];
    if cgroup::is_unified() {
        mounts.push(mount("cgroup", "cgroup", "/sys/fs/cgroup", "nosuid noexec nodev relatime ro")?);
    }
    if launch.spec.sandbox.network == Network::Host {
        for file in HOST_NETWORK_FILES.into_iter().filter(|file| Path::new(file).is_file()) {
            mounts.push(mount("bind", file, file, "bind ro nosuid nodev noexec")?);
        }
    }
    for edit in &oci.devices.mounts {
        let (from, to) = (edit.host_path.to_string_lossy(), edit.container_path.to_string_lossy());
        mounts.push(mount("bind", &from, &to, &format!("rbind {}", edit.options.join(" ")))?);
    }
    for asked in &oci.mounts {
        mounts.push(match asked {
            Asked::Tmpfs { target, size } => {
                let size = size.map_or(limit.clone(), |size| format!(" size={}", size.0));
                mount("tmpfs", "tmpfs", target, &format!("nosuid nodev mode=1777{size}"))?
            }
            Asked::Host { source, target, read_only } => {
                let access = if *read_only { "ro" } else { "rw" };
                mount("bind", source, target, &format!("rbind rprivate nosuid nodev {access}"))?
            }
        });
    }
    Ok(mounts)
}

fn linux(launch: &LaunchRecord, oci: &OciLaunch) -> Built<Linux> {
    let mut kinds = vec![
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ];
    if launch.spec.sandbox.network == Network::Loopback {
        kinds.push(LinuxNamespaceType::Network);
    }
    let namespaces = kinds.into_iter().map(|kind| LinuxNamespaceBuilder::default().typ(kind).build());
    let nodes = &oci.devices.device_nodes;
    LinuxBuilder::default()
        .namespaces(namespaces.collect::<Built<Vec<LinuxNamespace>>>()?)
        .cgroups_path(&oci.cgroup)
        .resources(resources(&launch.spec.resources, oci)?)
        .devices(nodes.iter().map(device).collect::<Built<Vec<LinuxDevice>>>()?)
        .seccomp(seccomp::profile())
        .masked_paths(MASKED.map(str::to_owned).to_vec())
        .readonly_paths(READ_ONLY.map(str::to_owned).to_vec())
        .build()
}

fn resources(asked: &Resources, oci: &OciLaunch) -> Built<LinuxResources> {
    let none = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?;
    let nodes = oci.devices.device_nodes.iter().map(device_rule);
    let devices = std::iter::once(Ok(none)).chain(nodes).collect::<Built<Vec<LinuxDeviceCgroup>>>()?;
    let pids = LinuxPidsBuilder::default().limit(i64::from(oci.pids_max)).build()?;
    let mut resources = LinuxResourcesBuilder::default().devices(devices).pids(pids);
    if asked.memory.0 > 0 {
        let limit = i64::try_from(asked.memory.0).unwrap_or(i64::MAX);
        let memory = LinuxMemoryBuilder::default().limit(limit);
        // Together with swap: what has no room in memory is not paged out either.
        let memory = if cgroup::limits_swap() { memory.swap(limit) } else { memory };
        resources = resources.memory(memory.build()?);
    }
    if asked.cpu.0 > 0 {
        // The quota comes when it runs: the runtime's own first process would spend it for seconds.
        let shares = (asked.cpu.0.saturating_mul(1024) / 1000).clamp(2, 262_144);
        resources = resources.cpu(LinuxCpuBuilder::default().shares(shares).build()?);
    }
    resources.build()
}

/// Its numbers as the description has them, else as the node on the machine.
fn numbers(node: &DeviceNode) -> (LinuxDeviceType, i64, i64) {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let metadata = std::fs::metadata(node.host_path.as_ref().unwrap_or(&node.path)).ok();
    let block = match &node.kind {
        Some(kind) => kind == "b",
        None => metadata.as_ref().is_some_and(|metadata| metadata.file_type().is_block_device()),
    };
    let kind = if block { LinuxDeviceType::B } else { LinuxDeviceType::C };
    let device = metadata.map(|metadata| metadata.rdev()).unwrap_or_default();
    let major = node.major.unwrap_or_else(|| i64::from(rustix::fs::major(device)));
    (kind, major, node.minor.unwrap_or_else(|| i64::from(rustix::fs::minor(device))))
}

fn device(node: &DeviceNode) -> Built<LinuxDevice> {
    let (kind, major, minor) = numbers(node);
    LinuxDeviceBuilder::default()
        .path(PathBuf::from(&node.path))
        .typ(kind)
        .major(major)
        .minor(minor)
        .file_mode(node.file_mode.unwrap_or(0o666))
        .uid(node.uid.unwrap_or(0))
        .gid(node.gid.unwrap_or(0))
        .build()
}

fn device_rule(node: &DeviceNode) -> Built<LinuxDeviceCgroup> {
    let (kind, major, minor) = numbers(node);
    let access = node.permissions.clone().unwrap_or_else(|| "rwm".to_owned());
    LinuxDeviceCgroupBuilder::default().allow(true).typ(kind).major(major).minor(minor).access(access).build()
}
