//! Which GPUs this machine has: as the driver tells, as `nvidia-smi` tells, or as the buses
//! show. Knows nothing of how a container is given one.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// `nvidia-smi` answers within seconds also on large machines; with a driver in trouble it may never.
const SMI_WAIT: Duration = Duration::from_secs(20);
/// Between two looks at whether it has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Largest list of names of PCI devices that is read, in bytes: ten times today's.
const PCI_IDS_BYTES_MAX: u64 = 16 << 20;
/// The vendor's number.
const NVIDIA: &str = "0x10de";
/// Display controllers: VGA, XGA, 3D.
const DISPLAY_CLASS: &str = "0x03";
/// What a device is called whose name nobody tells.
const UNNAMED: &str = "NVIDIA";

/// Kinds of this machine's GPU devices, in order of device number; empty when there is none that can be used.
#[must_use]
pub fn detect_gpus() -> Vec<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let program = std::env::split_paths(&path).map(|dir| dir.join("nvidia-smi")).find(|program| program.is_file());
    detect_in(Path::new("/"), program.as_deref(), SMI_WAIT)
}

/// The first that knows of some: the driver has the numbers that the nodes in `/dev` have.
fn detect_in(root: &Path, nvidia_smi: Option<&Path>, wait: Duration) -> Vec<String> {
    let from_smi = || nvidia_smi.map(|program| from_nvidia_smi(program, wait)).unwrap_or_default();
    let found = [&|| from_driver(root), &from_smi as &dyn Fn() -> Vec<String>, &|| from_buses(root)];
    found.into_iter().map(|look| look()).find(|kinds| !kinds.is_empty()).unwrap_or_default()
}

fn from_driver(root: &Path) -> Vec<String> {
    let Ok(devices) = fs::read_dir(root.join("proc/driver/nvidia/gpus")) else { return Vec::new() };
    let read = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("information")).ok();
    // By minor number, as the driver counts them.
    let mut found: Vec<(u32, String)> =
        devices.flatten().filter_map(read).filter_map(|information| driver_gpu(&information)).collect();
    found.sort();
    found.into_iter().map(|(_, kind)| kind).collect()
}

/// A device's number and kind.
fn driver_gpu(information: &str) -> Option<(u32, String)> {
    let field = |name: &str| {
        let line = information.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'))?;
        Some(line.trim())
    };
    Some((field("Device Minor")?.parse().ok()?, kind(field("Model")?)?))
}

fn from_nvidia_smi(program: &Path, wait: Duration) -> Vec<String> {
    let listed = match list(program, wait) {
        Ok(listed) => listed,
        Err(error) => {
            tracing::warn!(%error, program = %program.display(), "GPUs are not asked for");
            return Vec::new();
        }
    };
    let gpu = |line: &str| {
        let (number, name) = line.split_once(',')?;
        Some((number.trim().parse::<u32>().ok()?, kind(name)?))
    };
    let mut found: Vec<(u32, String)> = listed.lines().filter_map(gpu).collect();
    found.sort();
    found.into_iter().map(|(_, kind)| kind).collect()
}

fn list(program: &Path, wait: Duration) -> std::io::Result<String> {
    let mut command = Command::new(program);
    command.args(["--query-gpu=index,name", "--format=csv,noheader"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let end = Instant::now() + wait;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() >= end => {
                child.kill()?;
                child.wait()?;
                return Err(std::io::Error::other(format!("it said nothing within {} s", wait.as_secs())));
            }
            None => std::thread::sleep(LOOK_AGAIN),
        }
    };
    if !status.success() {
        return Err(std::io::Error::other(format!("it ended with {status}")));
    }
    let mut said = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut said)?;
    }
    Ok(said)
}

/// Devices on the buses, in the order of their addresses, as far as the driver has made nodes for them.
fn from_buses(root: &Path) -> Vec<String> {
    let mut devices: Vec<PathBuf> = fs::read_dir(root.join("sys/bus/pci/devices"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|device| {
            let is = |file: &str, start: &str| {
                fs::read_to_string(device.join(file)).is_ok_and(|text| text.trim().starts_with(start))
            };
            is("vendor", NVIDIA) && is("class", DISPLAY_CLASS)
        })
        .collect();
    devices.sort();
    let with_nodes = devices.iter().enumerate().filter(|(number, _)| root.join(format!("dev/nvidia{number}")).exists());
    let devices: Vec<&PathBuf> = with_nodes.map(|(_, device)| device).collect();
    if devices.is_empty() {
        return Vec::new();
    }
    let list = root.join("usr/share/misc/pci.ids");
    let small = fs::metadata(&list).is_ok_and(|list| list.len() <= PCI_IDS_BYTES_MAX);
    let names = if small { fs::read(list).unwrap_or_default() } else { Vec::new() };
    let names = String::from_utf8_lossy(&names);
    let kind_of = |device: &&PathBuf| {
        let number = fs::read_to_string(device.join("device")).ok();
        let name = number.and_then(|number| name_of(&names, number.trim().trim_start_matches("0x")));
        name.as_deref().and_then(kind).unwrap_or_else(|| UNNAMED.to_owned())
    };
    devices.iter().map(kind_of).collect()
}

/// The name of one of the vendor's devices in the list that `hwdata` and `pci.ids` bring: what is sold, where it is said
/// in brackets.
fn name_of(names: &str, device: &str) -> Option<String> {
    let vendor = names.lines().skip_while(|line| !line.starts_with("10de ")).skip(1);
    // Lines of its devices begin with one tab; the next vendor's with none.
    let mut of_vendor = vendor.take_while(|line| line.starts_with('\t') || line.starts_with('#'));
    let line = of_vendor.find_map(|line| line.strip_prefix('\t')?.strip_prefix(device)?.strip_prefix("  "))?;
    let sold = line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(sold, _)| sold);
    Some(sold.unwrap_or(line).to_owned())
}

/// A short kind, as in `A100` of `NVIDIA A100-SXM4-80GB`.
fn kind(model: &str) -> Option<String> {
    let mut words = model.trim().split([' ', '-']);
    let word = words.find(|word| !matches!(*word, "NVIDIA" | "Tesla" | "GeForce" | "Quadro" | ""))?;
    let kind: String = word.chars().filter(char::is_ascii_alphanumeric).collect();
    (!kind.is_empty()).then_some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn smi(root: &Path, script: &str) -> PathBuf {
        let program = root.join("nvidia-smi");
        // Written by another process: what this one has open for writing cannot be executed, nor while a child that
        // another test has just forked still has it.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\"; chmod 755 \"$1\"";
        let wrote = Command::new("sh").args(["-c", write, "sh"]).arg(&program).arg(script).status().unwrap();
        assert!(wrote.success());
        program
    }

    #[test]
    fn kinds_are_short() {
        for (model, expected) in [
            ("NVIDIA A100-SXM4-80GB", Some("A100")),
            ("NVIDIA H100 80GB HBM3", Some("H100")),
            ("Tesla T4", Some("T4")),
            ("NVIDIA", None),
        ] {
            assert_eq!(kind(model).as_deref(), expected, "{model}");
        }
    }

    #[test]
    fn the_driver_is_believed_first_and_its_numbers_count() {
        let root = tempfile::tempdir().unwrap();
        let smi = smi(root.path(), "echo '0, NVIDIA L4'");
        for (address, model, minor) in [("0000:01:00.0", "NVIDIA H100 80GB HBM3", 1), ("0000:02:00.0", "Tesla T4", 0)] {
            let information = format!("Model: \t\t {model}\nIRQ:   \t\t 11\nDevice Minor: \t {minor}\n");
            put(root.path(), &format!("proc/driver/nvidia/gpus/{address}/information"), &information);
        }
        put(root.path(), "proc/driver/nvidia/gpus/0000:03:00.0/information", "Model: x\n");
        assert_eq!(detect_in(root.path(), Some(&smi), SMI_WAIT), ["T4", "H100"]);
    }

    #[test]
    fn nvidia_smi_is_asked_where_the_driver_says_nothing() {
        let root = tempfile::tempdir().unwrap();
        let script = "[ \"$*\" = '--query-gpu=index,name --format=csv,noheader' ] || exit 2\n\
                      echo '1, NVIDIA A100-SXM4-80GB'; echo '0, NVIDIA L4'; echo 'a line of another kind'";
        assert_eq!(detect_in(root.path(), Some(&smi(root.path(), script)), SMI_WAIT), ["L4", "A100"]);
        assert!(detect_in(root.path(), Some(&smi(root.path(), "echo '0, NVIDIA L4'; exit 9")), SMI_WAIT).is_empty());
        assert!(detect_in(root.path(), Some(&root.path().join("none")), SMI_WAIT).is_empty());
    }

    #[test]
    fn nvidia_smi_that_hangs_is_ended() {
        let root = tempfile::tempdir().unwrap();
        let smi = smi(root.path(), "echo $$ > \"${0%/*}/pid\"; exec sleep 1000");
        let mut wait = Duration::from_millis(50);
        while !root.path().join("pid").exists() {
            wait *= 2;
            assert!(detect_in(root.path(), Some(&smi), wait).is_empty());
        }
        let pid = fs::read_to_string(root.path().join("pid")).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "it is gone");
    }

    #[test]
    fn buses_show_what_has_a_node() {
        let root = tempfile::tempdir().unwrap();
        let device = |address: &str, vendor: &str, class: &str, device: &str| {
            for (file, text) in [("vendor", vendor), ("class", class), ("device", device)] {
                put(root.path(), &format!("sys/bus/pci/devices/{address}/{file}"), &format!("{text}\n"));
            }
        };
        device("0000:01:00.0", "0x10de", "0x030200", "0x20b2");
        device("0000:01:00.1", "0x10de", "0x040300", "0x1aef");
        device("0000:02:00.0", "0x8086", "0x030000", "0x1234");
        device("0000:03:00.0", "0x10de", "0x030000", "0x27b8");
        device("0000:04:00.0", "0x10de", "0x030000", "0x27b8");
        assert!(detect_in(root.path(), None, SMI_WAIT).is_empty(), "without a driver there is nothing to give");
        put(root.path(), "dev/nvidia0", "");
        put(root.path(), "dev/nvidia1", "");
        assert_eq!(detect_in(root.path(), None, SMI_WAIT), ["NVIDIA", "NVIDIA"]);
        let names = "# a list\n10dd  Another\n\t20b2  Wrong\n10de  NVIDIA Corporation\n\t20b2  GA100 [A100 SXM4 80GB]\n\
                     \t\t10de 1463  A board\n\t27b8  AD104GL\n10df  A third\n\t27b8  Wrong\n";
        put(root.path(), "usr/share/misc/pci.ids", names);
        assert_eq!(detect_in(root.path(), None, SMI_WAIT), ["A100", "AD104GL"]);
    }
}
