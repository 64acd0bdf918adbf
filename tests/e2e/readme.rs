//! What the README tells a newcomer to type is what works.

use std::process::Command;

use crate::scene::{Scene, VOLLEY, out};

const README: &str = include_str!("../../README.md");

#[test]
fn the_first_command_prints_a_hundred_hellos() {
    let start = "cargo run --release -- ";
    let line = README.lines().find(|line| line.starts_with(start)).expect("a first command");
    let scene = Scene::new();
    let mut command = Command::new("sh");
    command.args(["-c", &line.replace(start, "\"$0\" "), VOLLEY]);
    scene.dress(&mut command);
    let ran = command.output().expect("there is a shell");
    assert!(ran.status.success(), "{line}: {}", out(&ran));
    assert_eq!(String::from_utf8_lossy(&ran.stdout).matches("hello from ").count(), 100, "{}", out(&ran));
}
