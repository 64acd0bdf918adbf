//! What the program knows of itself: settings and where they come from, completions, man pages.

use std::process::Output;

use serde_json::Value;

use crate::scene::{Scene, out};

/// Where a setting comes from and what it is.
fn setting<'a>(shown: &'a Value, name: &str) -> (&'a str, &'a str) {
    let settings = shown["settings"].as_array().expect("a list");
    let row = settings.iter().find(|row| row["setting"] == name).unwrap_or_else(|| panic!("{name}: {shown}"));
    (row["value"].as_str().expect("text"), row["from"].as_str().expect("text"))
}

fn good(ran: Output) -> String {
    assert!(ran.status.success(), "{}", out(&ran));
    String::from_utf8(ran.stdout).expect("text")
}

#[test]
fn settings_are_shown_with_where_they_come_from_and_without_secrets() {
    let scene = Scene::new();
    assert!(good(scene.run(&["config", "check"])).contains("no settings file"));
    let text = "token = 'very-secret'\n[serve]\nbacklog-max = 5\nstore = 'redis://me:very-secret@127.0.0.1/0'\n";
    std::fs::write(scene.path("volley.toml"), text).expect("the folder is ours");
    assert_eq!(good(scene.run(&["config", "check"])), "volley.toml is good\n");
    let mut show = scene.command(&["config", "show", "-o", "json"]);
    show.env("VOLLEY_WORKER_LEASE", "7s").args(["--server", "http://127.0.0.1:9"]);
    let shown = good(show.output().expect("the binary was built"));
    assert!(!shown.contains("very-secret"), "{shown}");
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["version"], 1);
    assert_eq!(setting(&shown, "serve.backlog-max"), ("5", "volley.toml:3"));
    assert_eq!(setting(&shown, "serve.worker-lease"), ("7s", "VOLLEY_WORKER_LEASE"));
    assert_eq!(setting(&shown, "serve.listen"), ("127.0.0.1:7171", "default"));
    assert_eq!(setting(&shown, "token"), ("(hidden)", "volley.toml:1"));
    assert!(good(scene.run(&["config", "show"])).contains("volley.toml:3"));
}

#[test]
fn a_mistake_in_the_settings_ends_every_command_with_its_place() {
    let scene = Scene::new();
    let file = scene.path("other.toml").display().to_string();
    std::fs::write(&file, "output = 'json'\n[serve]\nlissten = '127.0.0.1:0'\n").expect("the folder is ours");
    for args in [&["config", "check"][..], &["serve"], &["ps"]] {
        let ran = scene.run(&[&["--config", &file], args].concat());
        let told = out(&ran);
        assert_eq!(ran.status.code(), Some(2), "{told}");
        assert!(told.contains("other.toml:3:1: unknown setting 'lissten'") && told.lines().count() == 1, "{told}");
    }
    let missing = scene.run(&["--config", "nowhere.toml", "config", "check"]);
    assert!(missing.status.code() == Some(2) && out(&missing).contains("nowhere.toml"), "{}", out(&missing));
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let scene = Scene::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = good(scene.run(&["completions", shell]));
        assert!(script.contains("uncordon") && script.contains("worker-lease"), "{shell}");
    }
    let bash = good(scene.run(&["completions", "bash"]));
    std::fs::write(scene.path("completions"), bash).expect("the folder is ours");
    let read = std::process::Command::new("bash").arg("-n").arg(scene.path("completions")).status();
    assert!(read.expect("there is bash").success());
    assert!(good(scene.run(&["man"])).contains(".TH volley 1"));
    assert!(scene.run(&["man", "--dir", "pages"]).status.success());
    for page in ["volley.1", "volley-run.1", "volley-token-create.1"] {
        assert!(scene.path("pages").join(page).exists(), "{page}");
    }
}
