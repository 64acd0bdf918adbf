//! Every code block in README and docs that is a command is run, as a reader would: block after block of a page in one
//! folder. What cannot run here says so in the page, with the reason, and is held against the command line at least.
//!
//! The words after the three backticks:
//! - `sh`: it runs and ends well. `sh server`: it does so beside a server at the page's address.
//! - `sh start`: each line is a process that stays until the page's end; the first is the page's server. A page with `sh server`
//!   and without this gets `volley dev`.
//! - `sh elsewhere: REASON`: not run here.
//! - `LANGUAGE file=NAME`: the page's folder has it as that file.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::http;
use crate::scene::{Scene, VOLLEY, out, until};

/// The addresses that pages name, in order; each page gets free ones in their place.
const ADDRESSES: [&str; 2] = ["127.0.0.1:7171", "127.0.0.1:7181"];
/// What stands for the binary in the README.
const BUILT: &str = "cargo run --release -- ";

#[derive(Debug)]
struct Block {
    line: usize,
    info: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// README and all pages of the docs, decision records left out: they tell of what was.
fn pages() -> Vec<(String, String)> {
    let docs = std::fs::read_dir(root().join("docs")).expect("there are docs").flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    paths.push(root().join("README.md"));
    paths.sort();
    let name = |path: &Path| path.file_name().expect("a file").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("text"))).collect()
}

/// The fenced blocks of a page, and what is wrong with how it is written.
fn blocks(text: &str) -> (Vec<Block>, Vec<String>) {
    let (mut blocks, mut wrong): (Vec<Block>, Vec<String>) = (Vec::new(), Vec::new());
    let (mut open, mut blank): (Option<Block>, bool) = (None, true);
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(info), None) => {
                if info.trim().is_empty() {
                    wrong.push(format!("{}: a block without a language", number + 1));
                }
                open = Some(Block { line: number + 1, info: info.trim().to_owned(), text: String::new() });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) if blank && line.starts_with("    ") => {
                wrong.push(format!("{}: a block by indentation; use a fence with a language", number + 1));
            }
            (None, None) => {}
        }
        blank = line.trim().is_empty();
    }
    (blocks, wrong)
}

/// Runs on the page's folder.
struct Page<'s> {
    scene: &'s Scene,
    name: &'s str,
    dir: PathBuf,
    addresses: [String; 2],
    stay: Vec<Child>,
}

impl<'s> Page<'s> {
    fn new(scene: &'s Scene, name: &'s str, blocks: &[Block]) -> Self {
        let dir = scene.path(name);
        std::fs::create_dir_all(dir.join("bin")).expect("the scene is ours");
        std::os::unix::fs::symlink(VOLLEY, dir.join("bin/volley")).expect("a new folder");
        std::os::unix::fs::symlink(root().join("deploy"), dir.join("deploy")).expect("a new folder");
        let page = Self { scene, name, dir, addresses: ADDRESSES.map(|_| free_address()), stay: Vec::new() };
        for block in blocks {
            if let Some(file) = block.info.split(' ').find_map(|word| word.strip_prefix("file=")) {
                std::fs::write(page.dir.join(file), page.here(&block.text)).expect("the folder is ours");
            }
        }
        page
    }

    /// A text with the page's own addresses.
    fn here(&self, text: &str) -> String {
        let mut text = text.replace(BUILT, "volley ");
        for (told, own) in ADDRESSES.iter().zip(&self.addresses) {
            text = text.replace(told, own);
        }
        text
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        self.scene.dress(&mut command);
        let path = std::env::var("PATH").unwrap_or_default();
        command.args(["-euc", script]).current_dir(&self.dir);
        command.env("PATH", format!("{}:{path}", self.dir.join("bin").display()));
        command.env("VOLLEY_SERVER", format!("http://{}", self.addresses[0])).env("VOLLEY_LISTEN", &self.addresses[0]);
        command
    }

    fn run(&self, block: &Block) {
        let ran = self.shell(&self.here(&block.text)).output().expect("there is a shell");
        assert!(ran.status.success(), "{}:{}: {}\n{}", self.name, block.line, block.text, out(&ran));
    }

    /// Starts each line, and waits until it has an effect: the server answers, the fleet has so many workers.
    fn start(&mut self, block: &Block) {
        for line in self.here(&block.text).lines().filter(|line| !line.trim().is_empty()) {
            let stderr = std::fs::File::create(self.dir.join(format!("{}.err", self.stay.len()))).expect("ours");
            let mut command = self.shell(&format!("exec {line}"));
            let child = command.stdout(Stdio::null()).stderr(stderr).spawn().expect("there is a shell");
            self.stay.push(child);
            let workers = self.stay.len() - 1;
            until(&format!("{}:{}: '{line}' is there", self.name, block.line), || {
                let ended = self.stay.last_mut().expect("pushed").try_wait().expect("ours");
                assert!(ended.is_none(), "{}:{}: '{line}' has ended", self.name, block.line);
                http::request(&self.addresses[0], "GET", "/readyz", &[], b"").ok()?;
                let found = http::request(&self.addresses[0], "GET", "/v1/workers", &[], b"").ok()?.json();
                let wanted = if line.contains("volley dev") { 1 } else { workers };
                (found["workers"].as_array()?.len() >= wanted).then_some(())
            });
        }
    }
}

impl Drop for Page<'_> {
    /// Workers before their server, which hears of it.
    fn drop(&mut self) {
        while let Some(mut child) = self.stay.pop() {
            crate::scene::signal(child.id().cast_signed(), "TERM");
            // A process that does not end is found by the scene.
            let _ = child.wait();
        }
    }
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

/// A command that does not run here is one that the command line knows all the same.
fn check_words(page: &Page<'_>, block: &Block) {
    for line in page.here(&block.text).lines() {
        let Some((_, words)) = format!(" {line}").split_once(" volley ").map(|(a, b)| (a.to_owned(), b.to_owned()))
        else {
            continue;
        };
        let words = words.split(" #").next().unwrap_or_default().split(" > ").next().unwrap_or_default();
        let words = words.split(" -- ").next().unwrap_or_default();
        let ran = page.shell(&format!("volley {words} --help")).output().expect("there is a shell");
        assert!(ran.status.success(), "{}:{}: {line}\n{}", page.name, block.line, out(&ran));
    }
}

#[test]
fn every_command_of_the_pages_runs() {
    let scene = Scene::new();
    let (mut ran, mut elsewhere, mut wrong) = (0, Vec::new(), Vec::new());
    for (name, text) in pages() {
        let (blocks, bad) = blocks(&text);
        wrong.extend(bad.into_iter().map(|bad| format!("{name}:{bad}")));
        let mut page = Page::new(&scene, &name, &blocks);
        for block in &blocks {
            let (language, rest) = block.info.split_once(' ').unwrap_or((&block.info, ""));
            if !matches!(language, "sh" | "console" | "bash" | "shell") {
                continue;
            }
            match rest {
                "" => page.run(block),
                "start" => page.start(block),
                "server" => {
                    if page.stay.is_empty() {
                        let text = "volley dev --workers 2 --cpu 2 --memory 1Gi".to_owned();
                        page.start(&Block { line: block.line, info: String::new(), text });
                    }
                    page.run(block);
                }
                _ => match rest.strip_prefix("elsewhere: ").filter(|reason| reason.len() > 10) {
                    Some(reason) => {
                        check_words(&page, block);
                        elsewhere.push(format!("{name}:{}: {reason}", block.line));
                        continue;
                    }
                    None => wrong.push(format!("{name}:{}: '{rest}' is no word for a block of commands", block.line)),
                },
            }
            ran += 1;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    println!("{ran} blocks ran; not here:\n{}", elsewhere.join("\n"));
    assert!(ran > elsewhere.len(), "most of what the pages say runs here: {ran} did");
}

#[test]
fn the_first_command_prints_a_hundred_hellos() {
    let scene = Scene::new();
    let text = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let (blocks, _) = blocks(&text);
    let first = blocks.iter().find(|block| block.info == "sh").expect("a first command");
    let page = Page::new(&scene, "README.md", &[]);
    let ran = page.shell(&page.here(&first.text)).output().expect("there is a shell");
    assert_eq!(String::from_utf8_lossy(&ran.stdout).matches("hello from ").count(), 100, "{}", out(&ran));
}

#[test]
fn the_page_of_settings_is_what_the_binary_has() {
    let scene = Scene::new();
    // In the scene's folder there is no settings file whose values would be taken for defaults.
    let ran = scene.run(&["config", "reference"]);
    assert!(ran.status.success(), "{}", out(&ran));
    let page = std::fs::read_to_string(root().join("docs/config.md")).expect("a page");
    assert!(String::from_utf8_lossy(&ran.stdout) == page, "run: volley config reference > docs/config.md");
}
