//! A group of mixed shapes, CPU and declared GPU, placed in one batch; and one-at-a-time scheduling.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::scene::Scene;

fn spec(cpu: &str, memory: &str, gpu: Option<&str>) -> Value {
    json!({
        "command": "sh", "args": ["-c", "echo $CUDA_VISIBLE_DEVICES"],
        "resources": { "cpu": cpu, "memory": memory, "gpu": gpu },
    })
}

#[test]
fn sixteen_mixed_shapes_are_one_batch() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let gpus = ["--cpu", "8", "--memory", "16Gi", "--gpu", "H100:4", "--gpu", "A10G:2"];
    let gpu_worker = scene.worker(&server, "gpu", &gpus);
    let cpu_worker = scene.worker(&server, "cpu", &["--cpu", "8", "--memory", "16Gi"]);
    let mut specs: Vec<Value> =
        (1..=8).map(|size| spec(&format!("{}m", size * 50), &format!("{}Mi", size * 8), None)).collect();
    specs.extend(
        ["H100", "H100:2", "A100|H100:1", "A10G:0.5", "A10G:0.25", "A10G:0.25", "any:0.5", "any:0.5"]
            .map(|gpu| spec("100m", "16Mi", Some(gpu))),
    );
    let before = server.turns().len();
    let reply = server.post(&json!({ "specs": specs, "name": "mixed" }));
    assert_eq!(reply.status, 201, "{reply:?}");
    let group = reply.json()["group"].as_str().expect("a group").to_owned();
    let containers = server.until_finished(&group);
    assert_eq!(containers.len(), 16);
    assert!(server.turns()[before..].contains(&16), "one batch: {:?}", server.turns());
    let mut whole: BTreeSet<u64> = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        assert_eq!(container["success"], true, "{container}");
        let worker = if index < 8 { &cpu_worker } else { &gpu_worker };
        assert_eq!(container["worker"], worker.name.as_str(), "CPU work stays off GPU workers: {container}");
        let devices: Vec<u64> = container["gpus"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|g| g["device"].as_u64().expect("a number"))
            .collect();
        let id = container["id"].as_str().expect("an id");
        let shown: Vec<String> = devices.iter().map(u64::to_string).collect();
        let printed = server.request("GET", &format!("/v1/containers/{id}/logs"), &[], b"").body;
        assert_eq!(printed, format!("{}\n", shown.join(",")), "{container}");
        if (8..11).contains(&index) {
            assert!(devices.iter().all(|device| *device < 4 && whole.insert(*device)), "each H100 once: {container}");
        }
    }
    assert_eq!(whole.len(), 4);
    server.audit();
}

#[test]
fn a_batch_of_one_places_one_at_a_time() {
    let scene = Scene::new();
    let server = scene.server(&["--max-size", "1"]);
    let _worker = scene.worker(&server, "w", &["--cpu", "8", "--memory", "1Gi"]);
    let group = server.submit(20, "true", json!({ "resources": { "cpu": "100m", "memory": "8Mi" } }));
    server.until_finished(&group);
    let turns: Vec<u64> = server.turns().into_iter().filter(|placed| *placed > 0).collect();
    assert_eq!(turns, vec![1; 20]);
}
