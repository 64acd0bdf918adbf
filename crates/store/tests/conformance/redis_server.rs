//! A real redis-server for the tests of one process: started when first needed, on a unix socket
//! in a temporary folder, ended with the process. Each test gets a cell of its own.

use std::io::Read;
use std::os::unix::net::UnixStream;
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
}

impl RedisServer {
    /// A server with these settings beside those of every test.
    pub fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let socket = dir.path().join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--dir"]).arg(dir.path()).arg("--unixsocket").arg(&socket);
        let process = command.args(settings).stdout(Stdio::null()).stdin(Stdio::null()).spawn();
        let process = process.expect("redis-server is installed (cargo xtask test installs it)");
        let server = Self { process, dir };
        let started = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(started.elapsed() < START_MAX, "redis-server does not start: {:?}", server.said());
            std::thread::yield_now();
        }
        server
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

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.dir.path().join("redis.sock").display())
    }

    fn said(&self) -> String {
        let mut text = String::new();
        let log = std::fs::File::open(self.dir.path().join("redis.log"));
        log.and_then(|mut log| log.read_to_string(&mut text)).map_or_else(|error| error.to_string(), |_| text.clone())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
