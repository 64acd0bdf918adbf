//! What a container from an image sees and may do, and what not.

use std::path::Path;

use volley_agent::{KeptOptions, Launch};
use volley_model::{Bytes, ContainerId, CpuMilli, GpuGrant, GpuMilli, Mount, Network, Outcome, Spec};

use crate::bed::{Bed, CONTAINER, Containers, Kind as _, launch, nothing_left, run, shared, until};
use crate::suite::life;

const GOOD: Outcome = Outcome::Exited { code: 0, signal: None };

fn spec(dir: &Path, script: &str) -> Spec {
    Containers::spec(dir, script)
}

/// Each line of a script ends badly.
async fn refused(dir: &Path, change: impl Fn(&mut Spec), attempts: &[&str]) {
    let script: String =
        attempts.iter().map(|attempt| format!("({attempt}) 2>/dev/null >/dev/null && echo \"{attempt}\";")).collect();
    let mut spec = spec(dir, &format!("{script} echo done"));
    change(&mut spec);
    let (printed, outcome) = run(dir, spec).await;
    assert_eq!((printed.as_str(), outcome), ("done\n", GOOD), "what is printed could be done");
}

#[tokio::test]
async fn attempts_to_get_out_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let attempts = [
        "echo x > /proc/sys/kernel/hostname",
        "echo b > /proc/sysrq-trigger",
        "cat /proc/kcore",
        "test -s /proc/keys",
        "mknod /disk b 254 0",
        "mknod /memory c 1 1",
        "mount -t tmpfs none /tmp",
        "mount -t proc none /proc",
        "umount /proc",
        "unshare -m true",
        "unshare -U true",
        "echo x > /sys/kernel/mm/ksm/run",
        "hostname other",
        "ip link add dummy0 type dummy",
        "ls /sys/firmware/acpi",
        "cat /dev/vda",
        &format!("ls {}/images", dir.path().display()),
    ];
    refused(dir.path(), |_| {}, &attempts).await;
}

#[tokio::test]
async fn it_sees_its_own_processes_network_and_names_only() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo $$; ls -d /proc/[0-9]* | grep -c .; ip -o link | grep -c .; ip -o addr show lo | grep -c 127.0.0.1; \
                  grep NoNewPrivs /proc/self/status; grep Seccomp: /proc/self/status; hostname";
    let (printed, outcome) = run(dir.path(), spec(dir.path(), script)).await;
    assert_eq!(outcome, GOOD, "{printed}");
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "1");
    assert!(lines[1].parse::<u32>().unwrap() <= 4, "{printed}");
    assert_eq!(lines[2..6], ["1", "1", "NoNewPrivs:\t1", "Seccomp:\t2"], "{printed}");
    assert_eq!(lines[6], crate::bed::CONTAINER.to_string());
}

#[tokio::test]
async fn root_has_a_short_list_of_capabilities_and_others_have_none() {
    let dir = tempfile::tempdir().unwrap();
    let script = "grep -E 'Cap(Eff|Bnd|Inh|Amb)' /proc/self/status | tr '\\n' ' '";
    let (printed, _) = run(dir.path(), spec(dir.path(), script)).await;
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service: bits 0, 1, 3, 4, 5, 6, 7, 10.
    let (list, none) = ("00000000000004fb", "0000000000000000");
    let expected = |effective: &str| format!("CapInh:\t{none} CapEff:\t{effective} CapBnd:\t{list} CapAmb:\t{none} ");
    assert_eq!(printed, expected(list));
    let dir = tempfile::tempdir().unwrap();
    let mut other = spec(dir.path(), script);
    other.sandbox.user = Some("ann".to_owned());
    assert_eq!(run(dir.path(), other).await.0, expected(none));
}

#[tokio::test]
async fn users_are_the_images() {
    for (user, expected) in [
        (None, "uid=0(root) gid=0 /root"),
        (Some("ann"), "uid=1000(ann) gid=100(users) groups=29(audio) /home/ann"),
        (Some("77:88"), "uid=77 gid=88 /"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(dir.path(), "echo $(id) $HOME");
        spec.sandbox.user = user.map(str::to_owned);
        let (printed, outcome) = run(dir.path(), spec).await;
        assert_eq!((printed.replace(",29", "").trim(), outcome), (expected, GOOD));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(dir.path(), "true");
    spec.sandbox.user = Some("eve".to_owned());
    let (_, outcome) = run(dir.path(), spec).await;
    assert!(matches!(&outcome, Outcome::Failed { reason } if reason.contains("no user 'eve'")), "{outcome:?}");
}

#[tokio::test]
async fn what_is_read_only_is() {
    let dir = tempfile::tempdir().unwrap();
    let change = |spec: &mut Spec| spec.sandbox.read_only = true;
    refused(dir.path(), change, &["touch /x", "touch /bin/x", "rm /etc/passwd"]).await;
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(dir.path(), "touch /tmp/x && touch /dev/shm/x && echo good");
    spec.sandbox.read_only = true;
    assert_eq!(run(dir.path(), spec).await.0, "good\n");
}

#[tokio::test]
async fn what_is_written_is_its_own_and_goes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut bed =
            Bed::with::<Containers>(dir.path(), spec(dir.path(), "test -e /mine || echo clean; echo x > /mine"));
        assert_eq!(bed.outcome().await, GOOD);
        assert_eq!(bed.printed(false), "clean\n");
        bed.runtime.forget(crate::bed::CONTAINER, crate::bed::ATTEMPT);
        drop(bed);
        nothing_left(dir.path()).await;
    }
}

#[tokio::test]
async fn mounts_are_taken_from_allowed_folders_only() {
    let dir = tempfile::tempdir().unwrap();
    let folder = shared(dir.path());
    std::fs::write(folder.join("data"), "from the host").unwrap();
    let mut good =
        spec(dir.path(), "cat /mnt/data; touch /mnt/x 2>/dev/null || echo no; echo y > /scratch/y; cat /scratch/y");
    let host = Mount::Host { source: folder.display().to_string(), target: "/mnt".to_owned(), read_only: true };
    good.sandbox.mounts = vec![host, "tmpfs:/scratch:1Mi".parse().unwrap()];
    let (printed, outcome) = run(dir.path(), good).await;
    assert_eq!((printed.as_str(), outcome), ("from the hostno\ny\n", GOOD));
    std::os::unix::fs::symlink("/etc", folder.join("out")).unwrap();
    for source in ["/etc", "/no/such/folder", &format!("{}/out", folder.display())] {
        let dir = tempfile::tempdir().unwrap();
        let mut bad = spec(dir.path(), "true");
        bad.sandbox.mounts = vec![format!("{source}:/mnt").parse().unwrap()];
        let (_, outcome) = run(dir.path(), bad).await;
        assert!(matches!(&outcome, Outcome::Failed { reason } if reason.contains("--mount-root")), "{outcome:?}");
    }
}

#[tokio::test]
async fn the_machines_network_must_be_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(dir.path(), "true");
    spec.sandbox.network = Network::Host;
    let (_, outcome) = run(dir.path(), spec).await;
    assert!(matches!(&outcome, Outcome::Failed { reason } if reason.contains("--allow-host-network")), "{outcome:?}");
}

#[tokio::test]
async fn processes_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut options = crate::bed::oci_options(crate::bed::kept_options(dir.path()), dir.path());
    options.pids_max = 20;
    let runtime = std::sync::Arc::new(volley_agent::OciRuntime::new(options, sender).unwrap());
    let mut bed = Bed { runtime, receiver };
    let script = "i=0; while [ $i -lt 40 ]; do sleep 1000 & i=$((i+1)); echo $i; done";
    bed.runtime.start(launch(spec(dir.path(), script)));
    let outcome = bed.outcome().await;
    assert!(matches!(outcome, Outcome::Exited { code: 1.., signal: None }), "{outcome:?}");
    // The shell is one of the twenty.
    let (printed, said) = (bed.printed(false), bed.printed(true));
    assert_eq!((printed.lines().count(), printed.lines().last()), (19, Some("19")), "{said}");
    assert!(said.contains("can't fork"), "{said}");
    nothing_left(dir.path()).await;
}

/// What a container writes to its own files can fill the worker's disk: it is told so itself, and its end is known.
#[test]
fn a_disk_that_is_full_of_its_own_files_is_the_containers_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let call =
        |args: &[&str]| assert!(std::process::Command::new(args[0]).args(&args[1..]).status().unwrap().success());
    call(&["mount", "-t", "tmpfs", "-o", "size=8m", "none", small.to_str().unwrap()]);
    let found = life(async || {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let kept = KeptOptions { state_dir: small.clone(), ..crate::bed::kept_options(dir.path()) };
        let options = crate::bed::oci_options(kept, dir.path());
        let mut bed =
            Bed { runtime: std::sync::Arc::new(volley_agent::OciRuntime::new(options, sender).unwrap()), receiver };
        let fill =
            "dd if=/dev/zero of=/big bs=1M count=64 2>/tmp/said && exit 1; grep -q 'No space left' /tmp/said || exit 2";
        bed.runtime.start(launch(spec(dir.path(), &format!("{fill}; rm /big; echo room; exit 5"))));
        let first = (bed.outcome().await, bed.printed(false));
        let second = Launch {
            container: ContainerId { index: 1, ..CONTAINER },
            ..launch(spec(dir.path(), &format!("{fill}; exit 6")))
        };
        bed.runtime.start(second);
        (first, bed.outcome().await)
    });
    let left =
        std::fs::read_dir(&small).unwrap().flatten().filter(|attempt| attempt.path().join("bundle").exists()).count();
    call(&["umount", small.to_str().unwrap()]);
    let exited = |code| Outcome::Exited { code, signal: None };
    assert_eq!(found, ((exited(5), "room\n".to_owned()), exited(6)));
    assert_eq!(left, 0);
    life(async || nothing_left(dir.path()).await);
}

#[tokio::test]
async fn cpu_is_bounded_by_its_group() {
    let dir = tempfile::tempdir().unwrap();
    let mut asked = spec(dir.path(), "echo here; while :; do :; done");
    asked.resources.cpu = CpuMilli(250);
    asked.resources.memory = Bytes(64 << 20);
    let mut bed = Bed::with::<Containers>(dir.path(), asked);
    bed.line().await;
    let group = format!("volley/{}.{}.1", crate::bed::worker_of(dir.path()), crate::bed::CONTAINER);
    let read = |path: String| std::fs::read_to_string(path).ok();
    let quota = || {
        let version_1 = read(format!("/sys/fs/cgroup/cpu/{group}/cpu.cfs_quota_us"));
        version_1.or_else(|| read(format!("/sys/fs/cgroup/{group}/cpu.max"))).unwrap()
    };
    until("its quota is set", || quota().starts_with("25000")).await;
    // Not while the OCI runtime started it: its own first process would take seconds of a small part of a core.
    let config = std::fs::read_to_string(dir.path().join(format!(
        "{}.{}/bundle/config.json",
        crate::bed::CONTAINER,
        crate::bed::ATTEMPT.number
    )));
    let config: serde_json::Value = serde_json::from_str(&config.unwrap()).unwrap();
    let cpu = &config["linux"]["resources"]["cpu"];
    assert!(cpu["shares"].is_number() && cpu["quota"].is_null(), "{cpu}");
    // The kernel has held it back.
    let stat = || {
        let text = read(format!("/sys/fs/cgroup/cpu/{group}/cpu.stat"));
        text.or_else(|| read(format!("/sys/fs/cgroup/{group}/cpu.stat"))).unwrap_or_default()
    };
    let throttled = || stat().lines().any(|line| line.strip_prefix("nr_throttled ").is_some_and(|count| count != "0"));
    until("it is held back", throttled).await;
    assert!(bed.runtime.stop(crate::bed::CONTAINER, crate::bed::ATTEMPT, volley_model::Millis(0)));
    bed.outcome().await;
    nothing_left(dir.path()).await;
}

#[tokio::test]
async fn devices_come_by_their_description() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("cdi")).unwrap();
    let library = shared(dir.path()).join("library");
    std::fs::write(&library, "a library").unwrap();
    // Devices that every machine has stand for those of a driver.
    let description = serde_json::json!({
        "cdiVersion": "0.6.0", "kind": "nvidia.com/gpu",
        "devices": [
            { "name": "0", "containerEdits": { "deviceNodes": [{ "path": "/dev/gpu0", "hostPath": "/dev/null" }] } },
            { "name": "1", "containerEdits": { "deviceNodes": [{ "path": "/dev/gpu1", "hostPath": "/dev/zero" }] } },
        ],
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void", "DRIVER=fake"],
            "mounts": [{ "hostPath": library, "containerPath": "/lib/library", "options": ["ro", "nosuid", "nodev"] }],
        },
    });
    std::fs::write(dir.path().join("cdi/fake.json"), description.to_string()).unwrap();
    let mut bed = Bed::new::<Containers>(dir.path());
    let script =
        "echo $NVIDIA_VISIBLE_DEVICES $DRIVER; cat /lib/library; ls /dev | grep gpu; head -c 3 /dev/gpu1 | tr '\\0' z";
    let gpus = vec![GpuGrant { device: 1, milli: GpuMilli(1000) }];
    bed.runtime.start(Launch { gpus, ..launch(spec(dir.path(), script)) });
    assert_eq!(bed.outcome().await, GOOD, "{}", bed.printed(true));
    assert_eq!(bed.printed(false), "1 fake\na librarygpu1\nzzz");
    nothing_left(dir.path()).await;
}

#[tokio::test]
async fn secrets_are_in_no_command_line_and_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut secret = spec(dir.path(), "echo here; sleep 1000");
    secret.env.insert("TOKEN".to_owned(), "very-secret-7261".to_owned());
    let mut bed = Bed::with::<Containers>(dir.path(), secret);
    bed.line().await;
    assert!(crate::bed::processes("very-secret-7261").is_empty());
    let attempt = dir.path().join(format!("{}.1", crate::bed::CONTAINER));
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&attempt).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(!std::fs::read_to_string(attempt.join("bundle/runtime.log")).unwrap_or_default().contains("very-secret"));
    assert!(bed.runtime.stop(crate::bed::CONTAINER, crate::bed::ATTEMPT, volley_model::Millis(0)));
    bed.outcome().await;
    nothing_left(dir.path()).await;
}

/// What a runtime cannot do here is said at the start, before a container is taken.
#[test]
fn runtimes_are_tried_out() {
    volley_agent::Engine::find("runc").unwrap().try_out().unwrap();
    // It works where control groups are of one version; elsewhere it says why it does not.
    match volley_agent::Engine::find("crun").unwrap().try_out() {
        Ok(()) => assert!(std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()),
        Err(error) => {
            let words = error.to_string();
            assert!(words.contains("cannot run containers on this machine: ") && words.contains("cgroup"), "{words}");
        }
    }
}
