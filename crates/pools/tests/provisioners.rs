//! The provisioners against real programs: scripts that do what owners' scripts may do, and processes that stand for
//! workers.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use volley_model::{Bytes, Capacity, CpuMilli, Machine, PoolName, WorkerId};
use volley_pools::{
    CommandProvisioner, Lifeline, Lifetime, Listed, Order, ProcessOptions, ProcessProvisioner, ProvisionError,
    Provisioner,
};

fn order(worker: &str) -> Order {
    let gpus = vec!["A".to_owned(), "A".to_owned(), "B".to_owned()];
    let capacity = Capacity { cpu: CpuMilli(1500), memory: Bytes(1 << 30), slots: 4, gpus };
    let labels = BTreeMap::from([("zone".to_owned(), "north".to_owned())]);
    Order {
        worker: WorkerId::new(worker).unwrap(),
        pool: PoolName::new("p").unwrap(),
        machine: Machine { capacity, labels },
        options: BTreeMap::from([("SIZE".to_owned(), "large".to_owned())]),
    }
}

fn script(dir: &Path, body: &str) -> String {
    let path = dir.join("provision.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn command(dir: &TempDir, body: &str, timeout: Duration) -> CommandProvisioner {
    let server = "http://127.0.0.1:7171".to_owned();
    CommandProvisioner { program: script(dir.path(), body), args: vec!["x".to_owned()], timeout, server }
}

async fn created(body: &str) -> Result<String, ProvisionError> {
    let dir = tempfile::tempdir().unwrap();
    command(&dir, body, Duration::from_secs(20)).create(&order("p-1")).await
}

fn reason(result: Result<String, ProvisionError>) -> (bool, String) {
    match result.unwrap_err() {
        ProvisionError::Refused { reason } => (true, reason),
        ProvisionError::Unknown { reason } => (false, reason),
    }
}

#[tokio::test]
async fn a_command_is_told_everything_and_believed() {
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("said.json");
    let body = format!("cat > {}; echo '{{\"machine\": \"i-42\"}}'", said.display());
    let provisioner = command(&dir, &body, Duration::from_secs(20));
    assert_eq!(provisioner.create(&order("p-1")).await.unwrap(), "i-42");
    let asked: serde_json::Value = serde_json::from_slice(&std::fs::read(&said).unwrap()).unwrap();
    assert_eq!(
        asked,
        serde_json::json!({
            "version": 1, "action": "create", "pool": "p", "worker": "p-1", "server": "http://127.0.0.1:7171",
            "machine": { "cpu_milli": 1500, "memory_bytes": 1 << 30, "slots": 4, "gpus": ["A", "A", "B"],
                         "labels": { "zone": "north" } },
            "options": { "SIZE": "large" },
        })
    );
    provisioner.destroy(&order("p-1"), Some("i-42")).await.unwrap();
    let asked: serde_json::Value = serde_json::from_slice(&std::fs::read(&said).unwrap()).unwrap();
    assert_eq!(
        (&asked["action"], &asked["worker"], &asked["machine"]),
        (&"destroy".into(), &"p-1".into(), &"i-42".into())
    );
}

#[tokio::test]
async fn what_is_no_clear_answer_is_unknown() {
    let (refused, why) = reason(created("echo 'quota exceeded' >&2; exit 1").await);
    assert!(refused && why.contains("quota exceeded"), "{why}");
    for (body, says) in [
        ("echo '{\"machine\": \"i-1\"}'; exit 1", "and a machine"),
        ("echo 'that is no JSON'", "that is no JSON"),
        ("echo '{\"machine\": 7}'", "docs/pools.md"),
        ("echo '{\"machine\": \"\"}'", "printable"),
        ("echo oops >&2; exit 7", "exit code 7: oops"),
        ("kill -9 $$", "signal 9"),
        ("head -c 3000000 /dev/zero; exit 0", "longer"),
    ] {
        let (refused, why) = reason(created(body).await);
        assert!(!refused && why.contains(says), "{body}: {why}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_made_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut provisioner = command(&dir, "true", Duration::from_secs(1));
    provisioner.program = "/no/such/program".to_owned();
    let (refused, why) = reason(provisioner.create(&order("p-1")).await);
    assert!(refused && why.contains("/no/such/program"), "{why}");
}

#[tokio::test]
async fn a_program_that_hangs_is_killed_with_what_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("pids");
    let body = format!("sleep 600 & echo $! > {0}; echo $$ >> {0}; wait", mark.display());
    let provisioner = command(&dir, &body, Duration::from_millis(500));
    let (refused, why) = reason(provisioner.create(&order("p-1")).await);
    assert!(!refused && why.contains("did not answer within 500 ms"), "{why}");
    let pids = std::fs::read_to_string(&mark).unwrap();
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        wait_until(|| !is_alive(pid)).await;
    }
}

#[tokio::test]
async fn a_list_is_taken_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let list = |body: &str| {
        let provisioner = command(&dir, body, Duration::from_secs(20));
        async move { provisioner.list(&PoolName::new("p").unwrap(), &BTreeMap::new()).await }
    };
    let found = list(r#"echo '{"machines": [{"worker": "p-1", "machine": "i-1"}]}'"#).await.unwrap();
    assert_eq!(found, [Listed { worker: WorkerId::new("p-1").unwrap(), handle: "i-1".to_owned() }]);
    // One bad entry may be one that is missed: nothing is concluded from the others.
    let partial = list(r#"echo '{"machines": [{"worker": "p-1", "machine": "i-1"}, {"worker": "p 2"}]}'"#).await;
    assert!(matches!(partial, Err(ProvisionError::Unknown { .. })), "{partial:?}");
}

fn is_alive(pid: &str) -> bool {
    // A zombie has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

async fn wait_until(condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.expect("it comes to pass within a minute");
}

/// Processes that look like workers and wait.
fn processes(dir: &TempDir, body: &str) -> ProcessProvisioner {
    processes_of(dir, body, Lifetime::OfMachines)
}

fn processes_of(dir: &TempDir, body: &str, lifetime: Lifetime) -> ProcessProvisioner {
    let program = vec!["/bin/sh".to_owned(), script(dir.path(), body)];
    let (server, state_dir) = ("http://127.0.0.1:1".to_owned(), dir.path().join("machines"));
    ProcessProvisioner::new(ProcessOptions { program, server, state_dir, lifetime })
}

async fn list(provisioner: &ProcessProvisioner) -> Vec<Listed> {
    provisioner.list(&PoolName::new("p").unwrap(), &BTreeMap::new()).await.unwrap()
}

#[tokio::test]
async fn a_process_is_started_once_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let provisioner = processes(&dir, "echo \"$SIZE $*\" > $(dirname $0)/args; while :; do sleep 0.05; done");
    let first = provisioner.create(&order("p-1")).await.unwrap();
    // Another server, which knows nothing, is told the same.
    let other = processes(&dir, "while :; do sleep 0.05; done");
    assert_eq!(other.create(&order("p-1")).await.unwrap(), first);
    let second = provisioner.create(&order("p-2")).await.unwrap();
    let names: Vec<String> = list(&other).await.into_iter().map(|listed| listed.handle).collect();
    assert_eq!(names, [first.clone(), second.clone()]);
    wait_until(|| std::fs::read_to_string(dir.path().join("args")).is_ok_and(|args| args.ends_with('\n'))).await;
    provisioner.destroy(&order("p-1"), None).await.unwrap();
    provisioner.destroy(&order("p-1"), None).await.unwrap();
    assert!(!is_alive(&first) && is_alive(&second));
    assert!(!dir.path().join("machines/p/p-1").exists());
    provisioner.destroy(&order("p-2"), None).await.unwrap();
    assert_eq!(list(&provisioner).await, []);
}

#[tokio::test]
async fn a_process_that_is_to_end_with_its_server_does() {
    let dir = tempfile::tempdir().unwrap();
    let lifetime = Lifetime::OfServer(Arc::new(Lifeline::new().unwrap()));
    // As `volley worker --end-with-stdin` does.
    let body = r#"case "$*" in *--end-with-stdin*) cat > /dev/null;; esac"#;
    let provisioner = processes_of(&dir, body, lifetime);
    let first = provisioner.create(&order("p-1")).await.unwrap();
    let second = provisioner.create(&order("p-2")).await.unwrap();
    assert!(is_alive(&first) && is_alive(&second));
    drop(provisioner);
    wait_until(|| !is_alive(&first) && !is_alive(&second)).await;
}

#[tokio::test]
async fn all_processes_are_ended_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let provisioner = processes(&dir, "while :; do sleep 0.05; done");
    provisioner.end_all().await.unwrap();
    let first = provisioner.create(&order("p-1")).await.unwrap();
    let other_pool = Order { pool: PoolName::new("q").unwrap(), ..order("q-1") };
    let second = provisioner.create(&other_pool).await.unwrap();
    provisioner.end_all().await.unwrap();
    assert!(!is_alive(&first) && !is_alive(&second));
}

#[tokio::test]
async fn a_process_that_will_not_end_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    let provisioner =
        processes(&dir, &format!("trap '' TERM; touch {}; while :; do sleep 0.05; done", ready.display()));
    let pid = provisioner.create(&order("p-1")).await.unwrap();
    wait_until(|| ready.exists()).await;
    provisioner.destroy(&order("p-1"), None).await.unwrap();
    wait_until(|| !is_alive(&pid)).await;
}

#[tokio::test]
async fn a_worker_is_started_with_what_its_machine_offers() {
    let dir = tempfile::tempdir().unwrap();
    let args = dir.path().join("args");
    let body = format!("echo \"$SIZE $*\" > {0}.new; mv {0}.new {0}; while :; do sleep 0.05; done", args.display());
    let provisioner = processes(&dir, &body);
    provisioner.create(&order("p-1")).await.unwrap();
    wait_until(|| args.exists()).await;
    let folder = dir.path().join("machines/p/p-1");
    let expected = format!(
        "large worker --server http://127.0.0.1:1 --name p-1 --pool p --cpu=1500m --memory=1Gi --slots=4 \
         --gpu=A:2 --gpu=B:1 --label=zone=north --state {}\n",
        folder.display()
    );
    assert_eq!(std::fs::read_to_string(&args).unwrap(), expected);
    provisioner.destroy(&order("p-1"), None).await.unwrap();
}

#[tokio::test]
async fn what_a_worker_forks_is_no_second_worker() {
    let dir = tempfile::tempdir().unwrap();
    let ready = dir.path().join("ready");
    // A shell's fork keeps the shell's command line, as every fork does until it becomes another program.
    let forks = "(while kill -0 $$ 2>/dev/null; do sleep 0.05; done) &";
    let provisioner = processes(&dir, &format!("{forks} touch {}; wait", ready.display()));
    let pid = provisioner.create(&order("p-1")).await.unwrap();
    wait_until(|| ready.exists()).await;
    let handles: Vec<String> = list(&provisioner).await.into_iter().map(|listed| listed.handle).collect();
    assert_eq!(handles, [pid]);
    provisioner.destroy(&order("p-1"), None).await.unwrap();
    assert_eq!(list(&provisioner).await, []);
}
