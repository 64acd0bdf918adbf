//! What gives a container its devices: descriptions of the Container Device Interface where
//! there are some for the devices granted, else the driver's device nodes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use volley_model::GpuGrant;

/// Largest description in bytes.
const SPEC_BYTES_MAX: u64 = 4 << 20;
/// The class of devices that GPUs are described under.
const CLASS: &str = "gpu";
/// Nodes that the driver needs beside those of the devices.
const DRIVER_NODES: &[&str] = &["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"];

/// What is to be changed in a container for its devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Edits {
    pub(super) env: Vec<String>,
    pub(super) device_nodes: Vec<DeviceNode>,
    pub(super) mounts: Vec<EditMount>,
    pub(super) hooks: Vec<EditHook>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct DeviceNode {
    pub(super) path: PathBuf,
    pub(super) host_path: Option<PathBuf>,
    /// `c`, `b`, `u` or `p`.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    pub(super) file_mode: Option<u32>,
    pub(super) permissions: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EditMount {
    pub(super) host_path: PathBuf,
    pub(super) container_path: PathBuf,
    #[serde(default)]
    pub(super) options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EditHook {
    pub(super) hook_name: String,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) args: Vec<String>,
    #[serde(default)]
    pub(super) env: Vec<String>,
    pub(super) timeout: Option<i64>,
}

/// A description as it lies on the machine.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    /// As in `nvidia.com/gpu`.
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: DeviceName,
    #[serde(default)]
    container_edits: Edits,
}

/// In YAML a name such as `0` may be read as a number.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DeviceName {
    Text(String),
    Number(u32),
}

impl DeviceName {
    fn is(&self, device: u32) -> bool {
        match self {
            DeviceName::Text(text) => *text == device.to_string(),
            DeviceName::Number(number) => *number == device,
        }
    }
}

impl Edits {
    fn add(&mut self, other: &Edits) {
        fn new<T: Clone + PartialEq>(into: &mut Vec<T>, from: &[T]) {
            let missing: Vec<T> = from.iter().filter(|item| !into.contains(item)).cloned().collect();
            into.extend(missing);
        }
        new(&mut self.env, &other.env);
        new(&mut self.device_nodes, &other.device_nodes);
        new(&mut self.mounts, &other.mounts);
        new(&mut self.hooks, &other.hooks);
    }

    /// The runtime must be told of the end, to run these.
    pub(super) fn has_poststop(&self) -> bool {
        self.hooks.iter().any(|hook| hook.hook_name == "poststop")
    }
}

/// What gives a container the devices that it was granted.
pub(super) fn edits(dirs: &[PathBuf], dev: &Path, gpus: &[GpuGrant]) -> Result<Edits, String> {
    if gpus.is_empty() {
        return Ok(Edits::default());
    }
    let descriptions = descriptions(dirs)?;
    let mut edits = match from_descriptions(&descriptions, gpus)? {
        Some(edits) => edits,
        None => from_nodes(dev, gpus)?,
    };
    let devices: Vec<String> = gpus.iter().map(|grant| grant.device.to_string()).collect();
    // Inside, a program that goes by these sees the devices it was given, whatever the description said.
    edits.env.retain(|pair| !pair.starts_with("NVIDIA_VISIBLE_DEVICES="));
    edits.env.push(format!("NVIDIA_VISIBLE_DEVICES={}", devices.join(",")));
    Ok(edits)
}

fn descriptions(dirs: &[PathBuf]) -> Result<BTreeMap<PathBuf, Description>, String> {
    let mut found = BTreeMap::new();
    for entry in dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten().flatten() {
        let path = entry.path();
        if !matches!(path.extension().and_then(|end| end.to_str()), Some("json" | "yaml" | "yml")) {
            continue;
        }
        let problem = |error: &dyn std::fmt::Display| {
            format!("the device description {} cannot be read: {error}", path.display())
        };
        if fs::metadata(&path).map_err(|error| problem(&error))?.len() > SPEC_BYTES_MAX {
            return Err(problem(&format!("it is larger than {} MiB", SPEC_BYTES_MAX >> 20)));
        }
        let text = fs::read_to_string(&path).map_err(|error| problem(&error))?;
        // JSON is YAML, too.
        let description: Description = serde_yaml_ng::from_str(&text).map_err(|error| problem(&error))?;
        if description.kind.split_once('/').is_some_and(|(_, class)| class == CLASS) {
            found.insert(path, description);
        }
    }
    Ok(found)
}

/// `None` when none describes GPUs.
fn from_descriptions(
    descriptions: &BTreeMap<PathBuf, Description>,
    gpus: &[GpuGrant],
) -> Result<Option<Edits>, String> {
    if descriptions.is_empty() {
        return Ok(None);
    }
    let mut edits = Edits::default();
    for grant in gpus {
        let described = descriptions.values().find_map(|description| {
            Some((description, description.devices.iter().find(|device| device.name.is(u32::from(grant.device)))?))
        });
        let Some((description, device)) = described else {
            let files: Vec<String> = descriptions.keys().map(|path| path.display().to_string()).collect();
            return Err(format!(
                "GPU {} is not described in {}; describe it (nvidia-ctk cdi generate)",
                grant.device,
                files.join(", ")
            ));
        };
        edits.add(&description.container_edits);
        edits.add(&device.container_edits);
    }
    Ok(Some(edits))
}

/// The driver's nodes of these devices.
fn from_nodes(dev: &Path, gpus: &[GpuGrant]) -> Result<Edits, String> {
    let node = |name: &str| {
        let path = dev.join(name);
        let metadata = fs::metadata(&path).ok()?;
        metadata.file_type().is_char_device().then(|| {
            let device = metadata.rdev();
            DeviceNode {
                path: Path::new("/dev").join(name),
                host_path: Some(path),
                kind: Some("c".to_owned()),
                major: Some(i64::from(rustix::fs::major(device))),
                minor: Some(i64::from(rustix::fs::minor(device))),
                permissions: Some("rw".to_owned()),
                ..DeviceNode::default()
            }
        })
    };
    let mut edits = Edits::default();
    for grant in gpus {
        let name = format!("nvidia{}", grant.device);
        let found = node(&name).ok_or_else(|| {
            format!(
                "GPU {} has neither a device description (CDI) nor a node {}",
                grant.device,
                dev.join(&name).display()
            )
        })?;
        edits.device_nodes.push(found);
    }
    edits.device_nodes.extend(DRIVER_NODES.iter().filter_map(|name| node(name)));
    Ok(edits)
}

#[cfg(test)]
mod tests {
    use volley_model::GpuMilli;

    use super::*;

    fn grants(devices: &[u16]) -> Vec<GpuGrant> {
        devices.iter().map(|device| GpuGrant { device: *device, milli: GpuMilli(1000) }).collect()
    }

    const YAML: &str = "\
cdiVersion: 0.6.0
kind: nvidia.com/gpu
devices:
- name: \"0\"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
- name: 1
  containerEdits:
    env: [SECOND=1]
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  mounts:
  - hostPath: /usr/lib/libcuda.so
    containerPath: /usr/lib/libcuda.so
    options: [ro, bind]
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-ctk
    args: [nvidia-ctk, hook]
";

    #[test]
    fn a_description_gives_its_devices_and_what_all_of_them_need() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("nvidia.yaml"), YAML).unwrap();
        fs::write(dir.path().join("other.json"), r#"{"cdiVersion": "0.6.0", "kind": "a.com/nic", "devices": []}"#)
            .unwrap();
        let dirs = [dir.path().to_owned(), "/no/such/folder".into()];
        let found = edits(&dirs, Path::new("/nowhere"), &grants(&[0, 1])).unwrap();
        assert_eq!(found.env, ["SECOND=1", "NVIDIA_VISIBLE_DEVICES=0,1"]);
        assert_eq!((found.mounts.len(), found.hooks.len(), found.device_nodes.len()), (1, 1, 1));
        assert!(!found.has_poststop());
        let missing = edits(&dirs, Path::new("/nowhere"), &grants(&[7])).unwrap_err();
        assert!(missing.starts_with("GPU 7 is not described in "), "{missing}");
    }

    #[test]
    fn without_a_description_the_nodes_are_looked_for() {
        let missing = edits(&[], Path::new("/nowhere"), &grants(&[3])).unwrap_err();
        assert!(missing.contains("/nowhere/nvidia3"), "{missing}");
        assert_eq!(edits(&[], Path::new("/nowhere"), &[]).unwrap(), Edits::default());
    }

    #[test]
    fn a_description_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("bad.yaml"), "kind: [").unwrap();
        let error = edits(&[dir.path().to_owned()], Path::new("/nowhere"), &grants(&[0])).unwrap_err();
        assert!(error.contains("bad.yaml cannot be read"), "{error}");
    }
}
