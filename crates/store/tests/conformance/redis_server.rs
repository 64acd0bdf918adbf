//! A real redis-server for the tests of one process: started when first needed, on a unix socket
//! in a temporary folder, ended with the process. Each test gets a cell of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Far more than a server takes to start on a loaded machine.
const START_MAX: Duration = Duration::from_secs(30);

pub struct RedisServer {
    process: Child,
    dir: TempDir,
    settings: Vec<String>,
}

impl RedisServer {
    /// A server with these settings beside those of every test.
    pub fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let process = Self::spawn(dir.path(), &settings);
        let server = Self { process, dir, settings };
        server.wait();
        server
    }

    fn spawn(dir: &Path, settings: &[String]) -> Child {
        let mut command = Command::new(program());
        command.args(["--port", "0", "--save", "", "--logfile", "redis.log", "--dir"]).arg(dir);
        command.arg("--unixsocket").arg(dir.join("redis.sock")).args(settings);
        let process = command.stdout(Stdio::null()).stdin(Stdio::null()).spawn();
        process.unwrap_or_else(|error| panic!("{} (cargo xtask test installs redis-server): {error}", program()))
    }

    /// Until it answers: it may be loading what it had written.
    fn wait(&self) {
        let started = Instant::now();
        while self.try_cli(&["PING"]).as_deref() != Some("PONG") {
            assert!(started.elapsed() < START_MAX, "redis-server does not start: {:?}", self.said());
            std::thread::yield_now();
        }
    }

    /// A command of an operator's.
    pub fn cli(&self, words: &[&str]) -> String {
        self.try_cli(words).expect("the server answers")
    }

    fn try_cli(&self, words: &[&str]) -> Option<String> {
        let mut stream = UnixStream::connect(self.dir.path().join("redis.sock")).ok()?;
        stream.set_read_timeout(Some(START_MAX)).ok()?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(request.as_bytes()).ok()?;
        // The first line says it all.
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.starts_with('-') { None } else { Some(line.trim_start_matches(['+', ':', '$', '*']).to_owned()) }
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.process.id().to_string()).status();
        assert!(status.expect("kill is there").success());
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    /// With the same settings, on the files it left.
    pub fn start_again(&mut self) {
        // The socket is left behind by a killed server.
        let _ = std::fs::remove_file(self.dir.path().join("redis.sock"));
        self.process = Self::spawn(self.dir.path(), &self.settings);
        self.wait();
    }

    /// The server that tests of this process share, and the name of a cell that nobody else has.
    pub fn cell() -> (Arc<Self>, String) {
        static SHARED: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
        static CELLS: AtomicU64 = AtomicU64::new(0);
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let server = shared.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Self::start(&[]));
            *shared = Arc::downgrade(&server);
            server
        });
        (server, format!("test{}", CELLS.fetch_add(1, Ordering::SeqCst)))
    }

    /// Listens on a free loopback port too, for replicas; which one.
    pub fn listen(&self) -> String {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port().to_string();
        self.cli(&["CONFIG", "SET", "port", &port]);
        port
    }

    pub fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("redis.sock")
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    fn said(&self) -> String {
        let mut text = String::new();
        let log = std::fs::File::open(self.dir.path().join("redis.log"));
        log.and_then(|mut log| log.read_to_string(&mut text)).map_or_else(|error| error.to_string(), |_| text.clone())
    }
}

/// `redis-server`, or another that speaks the same, as in `valkey-server`.
#[allow(clippy::disallowed_methods, reason = "a test's own arguments come from its environment")]
fn program() -> String {
    std::env::var("VOLLEY_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
