//! `volley watch`: on a real (pseudo) terminal it shows what happens as it happens, quits by key and by signal, and
//! leaves the terminal as it was; elsewhere it prints one frame.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::scene::{Scene, VOLLEY, out, until};

#[test]
fn without_a_terminal_one_frame_is_printed() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let group = server.submit(3, "true", json!({ "resources": { "cpu": "750m", "memory": "64Mi" } }));
    until("the shape was looked at", || (server.get("/v1/overview")["blocked_containers"] == 3).then_some(()));
    let ran = server.volley(&["watch"]);
    let shown = out(&ran);
    assert!(ran.status.success(), "{shown}");
    for words in ["750m CPU, 64Mi", "there are no workers", &group, "POOL"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(!shown.contains('\u{1b}') && shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert_eq!(server.json(&["watch"])["blocked_shapes"], 1);
}

#[test]
fn on_a_terminal_it_follows_and_leaves_nothing_behind() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let _worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi"]);
    // By its key, and by Ctrl-C.
    for (round, key) in [b"q", b"\x03"].into_iter().enumerate() {
        let typescript = scene.path(&format!("typescript-{round}"));
        let inside = format!("trap : INT; {VOLLEY} --server {} watch; echo code=$?; stty -a", server.url);
        let mut script = Command::new("script");
        scene.dress(&mut script);
        script.args(["-qefc", &inside]).arg(&typescript).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut script = script.spawn().expect("util-linux has script");
        let shown = || String::from_utf8_lossy(&std::fs::read(&typescript).unwrap_or_default()).into_owned();
        until("the first frame", || shown().contains("LAST BURSTS").then_some(()));
        let group = server.submit(2, "true", json!({}));
        server.until_finished(&group);
        let line = format!("{group}{:>11}{:>10}{:>10}", 2, 2, 2);
        until("the burst and its end are shown", || shown().contains(&line).then_some(()));
        let mut stdin = script.stdin.take().expect("piped");
        stdin.write_all(key).expect("it reads");
        stdin.flush().expect("it reads");
        let status = until("it quits", || script.try_wait().expect("it is ours"));
        drop(stdin);
        let shown = shown();
        assert!(status.success(), "{status}: {shown}");
        let (_, after) = shown.rsplit_once("\u{1b}[?1049l").expect("the first screen is back");
        assert!(after.contains("code=0") && shown.contains("\u{1b}[?25h"), "{after}");
        let modes: Vec<&str> = after.split([' ', ';', '\r', '\n']).collect();
        assert!(modes.contains(&"icanon") && modes.contains(&"echo") && after.contains("susp = ^Z"), "{after}");
    }
}
