//! Every command against one server, in all three formats: a table for people, JSON with a
//! version, ids for shells.

use serde_json::{Value, json};

use crate::scene::{Scene, Server, out, until};

fn table(server: &Server, args: &[&str]) -> String {
    let ran = server.volley(args);
    assert!(ran.status.success(), "{args:?}: {}", out(&ran));
    String::from_utf8(ran.stdout).expect("text")
}

fn quiet(server: &Server, args: &[&str]) -> Vec<String> {
    table(server, &[args, &["-o", "quiet"]].concat()).lines().map(str::to_owned).collect()
}

#[test]
fn each_command_speaks_all_three_formats() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let flags = ["--cpu", "1500m", "--memory", "1Gi", "--slots", "7", "--gpu", "A10G:1", "--label", "zone=a"];
    let worker = scene.worker(&server, "w", &flags);
    let name = worker.name.as_str();
    let ran = server.json(&["run", "-n", "2", "--name", "first", "--gpu", "A10G:0.5", "--", "sh", "-c", "echo hi"]);
    assert_eq!((&ran["containers"], &ran["succeeded"]), (&2.into(), &2.into()));
    let group = ran["group"].as_str().expect("a group");
    let ids = [format!("{group}-0"), format!("{group}-1")];

    assert_eq!(server.json(&["ps", "-a"])["containers"].as_array().map(Vec::len), Some(2));
    assert_eq!(quiet(&server, &["ps", "-a"]), ids);
    assert_eq!(quiet(&server, &["ps", "--state", "finished", "--group", &group[..7]]), ids);
    assert!(quiet(&server, &["ps"]).is_empty());
    let shown = table(&server, &["ps", "-a"]);
    assert!(shown.starts_with("ID ") && shown.contains("exit code 0") && shown.contains(name), "{shown}");

    assert_eq!(server.json(&["inspect", &ids[1]])["attempt"], 1);
    assert_eq!(quiet(&server, &["inspect", group]), [group]);
    assert!(table(&server, &["inspect", group]).contains("succeeded:    2"));
    assert!(table(&server, &["inspect", &ids[0]]).contains("gpu asked:    A10G:0.5"));

    let workers = server.json(&["workers"]);
    assert_eq!((&workers["workers"][0]["id"], &workers["workers"][0]["finished"]), (&name.into(), &2.into()));
    assert_eq!(quiet(&server, &["workers"]), [name]);
    let shown = table(&server, &["workers"]);
    for words in ["1.5 of 1.5", "1Gi of 1Gi", "7 of 7", "A10G 1 of 1"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }

    assert_eq!(server.json(&["cordon", "w-"])["worker"], name);
    assert!(table(&server, &["workers"]).contains("cordoned"));
    assert_eq!(quiet(&server, &["uncordon", name]), [name]);
    assert!(table(&server, &["drain", name]).contains("goes on to its end"));
    assert!(table(&server, &["uncordon", name]).contains("again"));

    let events = table(&server, &["events"]);
    assert!(events.contains("NUMBER") && events.contains("finished   attempt 1 on"), "{events}");
    let last = quiet(&server, &["events"]).pop().expect("an event");
    let rest = table(&server, &["events", "--after", &(last.parse::<u64>().expect("a number") - 1).to_string()]);
    assert_eq!(rest.lines().count(), 2, "a header and the last one: {rest}");

    let file = scene.path("copy.db").display().to_string();
    assert_eq!(server.json(&["backup", &file])["file"], file.as_str());
    assert!(table(&server, &["audit"]).contains("all hold"));
    assert!(quiet(&server, &["audit"]).is_empty());
}

#[test]
fn each_command_and_exit_code_is_in_the_docs() {
    let docs = include_str!("../../docs/cli.md");
    let scene = Scene::new();
    let help = out(&scene.run(&["--help"]));
    let (_, rest) = help.split_once("Commands:").expect("a list of commands");
    let (commands, rest) = rest.split_once("Options:").expect("options");
    for command in commands.lines().filter_map(|line| line.split_whitespace().next()) {
        assert!(docs.contains(&format!("| `volley {command}")), "docs/cli.md does not know 'volley {command}'");
    }
    let (_, codes) = rest.split_once("Exit codes: ").expect("exit codes");
    for code in codes.trim_end_matches(".\n").split("; ").filter_map(|code| code.split(' ').next()) {
        assert!(docs.contains(&format!("| {code} | ")), "docs/cli.md does not know exit code {code}");
    }
}

#[test]
fn the_audits_fields_are_these_and_no_others() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    server.submit(3, "true", json!({}));
    let audit = server.json(&["audit"]);
    let expected = json!({
        "version": 1, "ok": true, "accepted": 3, "queued": 3, "claimed": 0, "assigned": 0, "starting": 0,
        "running": 0, "stopping": 0, "finished": 0, "pruned": 0, "violations": [],
    });
    assert_eq!(audit, expected);
}

#[test]
fn long_lists_are_whole_or_say_that_there_is_more() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let group = server.submit(2_500, "true", json!({}));
    let ran = server.volley(&["ps", "-o", "quiet"]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout).lines().count(), 1_000);
    let more = format!("there are more: go on with --after {group}-999, or list all with --max 0\n");
    assert_eq!(String::from_utf8_lossy(&ran.stderr), more);
    assert_eq!(quiet(&server, &["ps", "--max", "0"]).len(), 2_500);
    assert_eq!(quiet(&server, &["ps", "--max", "1700"]).len(), 1_700);
    let rest = quiet(&server, &["ps", "--max", "0", "--after", &format!("{group}-2399")]);
    assert_eq!((rest.len(), rest[0].as_str()), (100, format!("{group}-2400").as_str()));
    let page = server.json(&["ps", "--max", "10"]);
    assert_eq!(page["next"], format!("{group}-9"));
}

#[test]
fn pruned_and_kept_are_counted() {
    let scene = Scene::new();
    let server = scene.server(&["--keep-finished", "5"]);
    let _worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi"]);
    server.submit(12, "true", json!({ "resources": { "cpu": "10m", "memory": "8Mi" } }));
    let audit = until("all but five are pruned", || {
        let audit = server.audit();
        (audit["pruned"] == 7).then_some(audit)
    });
    assert_eq!((&audit["accepted"], &audit["finished"]), (&12.into(), &5.into()));
}

#[test]
fn a_run_repeated_under_its_key_ends_though_its_containers_have() {
    let scene = Scene::new();
    let server = scene.server(&["--keep-finished", "2"]);
    let _worker = scene.worker(&server, "w", &["--cpu", "1", "--memory", "1Gi"]);
    let run = || server.volley(&["run", "--key", "k", "-n", "4", "--", "sh", "-c", "echo $VOLLEY_CONTAINER_ID"]);
    let first = run();
    assert_eq!((first.status.code(), String::from_utf8_lossy(&first.stdout).lines().count()), (Some(0), 4));
    until("two of four are forgotten", || (server.audit()["pruned"] == 2).then_some(()));
    let again = run();
    assert!(again.status.success(), "{}", out(&again));
    assert_eq!(String::from_utf8_lossy(&again.stdout).lines().count(), 2, "what is kept of it: {}", out(&again));
    assert_eq!(server.audit()["accepted"], 4);
}

#[test]
fn all_in_one_process() {
    let scene = Scene::new();
    let mut command =
        scene.command(&["dev", "-o", "json", "--listen", "127.0.0.1:0", "--data", "data", "--workers", "2"]);
    command.args(["--cpu", "1", "--memory", "1Gi"]);
    let (process, told) = scene.start(command);
    let server = Server::of(process, &told);
    let ran = server.volley(&["run", "-n", "30", "--", "sh", "-c", "echo from $VOLLEY_CONTAINER_ID"]);
    assert!(ran.status.success(), "{}", out(&ran));
    assert_eq!(String::from_utf8_lossy(&ran.stdout).lines().count(), 30);
    assert_eq!(server.volley(&["run", "--", "sh", "-c", "exit 3"]).status.code(), Some(3));
    assert_eq!(quiet(&server, &["workers"]), ["dev-1", "dev-2"]);
    let ran = server.volley(&["cordon", "dev"]);
    assert_eq!(ran.status.code(), Some(5), "{}", out(&ran));
    assert!(out(&ran).contains("'dev' is ambiguous (dev-1, dev-2)"), "{}", out(&ran));
    let page: Value = server.json(&["ps", "--all"]);
    assert_eq!(page["containers"].as_array().map(Vec::len), Some(31));
    assert_eq!(server.audit()["finished"], 31);
}
