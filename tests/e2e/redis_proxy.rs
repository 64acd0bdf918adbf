//! A way to a redis-server that can be cut in the middle of a call, closed, or led to another
//! server. Knows nothing of what goes through.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of one read.
const CHUNK_BYTES: usize = 64 << 10;

pub struct RedisProxy {
    address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    target: Mutex<PathBuf>,
    /// So many of the next requests go through whole, and their replies do not come back.
    cuts: AtomicU64,
    ended: AtomicBool,
    open: Mutex<Vec<(TcpStream, UnixStream)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RedisProxy {
    /// Listens on a free loopback port, for the socket of a redis-server.
    pub fn to(target: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let target = Mutex::new(target.to_owned());
        let (cuts, ended, open) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::default());
        let inner = Arc::new(Inner { target, cuts, ended, open });
        let accepting = Arc::clone(&inner);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                accepting.carry(client);
            }
        });
        Self { address, inner }
    }

    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// The next so many requests arrive, and the connections they came on break before the reply.
    pub fn cut_replies(&self, count: u64) {
        self.inner.cuts.store(count, Ordering::SeqCst);
    }

    /// From now on it leads there; what is open breaks.
    pub fn lead_to(&self, target: &Path) {
        target.clone_into(&mut lock(&self.inner.target));
        self.break_all();
    }

    fn break_all(&self) {
        for (client, server) in lock(&self.inner.open).drain(..) {
            // Broken already is as good.
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for RedisProxy {
    fn drop(&mut self) {
        self.inner.ended.store(true, Ordering::SeqCst);
        self.break_all();
        // Wakes the one who accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Inner {
    /// A connection; dropped at once when nobody is there.
    fn carry(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = UnixStream::connect(&*lock(&self.target)) else { return };
        // Small requests are wanted at once.
        let _ = client.set_nodelay(true);
        let (Ok(client_again), Ok(server_again)) = (client.try_clone(), server.try_clone()) else { return };
        let (Ok(client_back), Ok(server_back)) = (client.try_clone(), server.try_clone()) else { return };
        lock(&self.open).push((client_again, server_again));
        let cut = Arc::new(AtomicBool::new(false));
        let (inner, cut_there) = (Arc::clone(self), Arc::clone(&cut));
        std::thread::spawn(move || inner.there(client, server, &cut_there));
        std::thread::spawn(move || back(server_back, client_back, &cut));
    }

    fn take_cut(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        self.cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    fn there(&self, mut client: TcpStream, mut server: UnixStream, cut: &AtomicBool) {
        let mut bytes = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = client.read(&mut bytes) {
            let cutting = self.take_cut();
            // First, so that no reply slips through.
            cut.store(cutting, Ordering::SeqCst);
            if server.write_all(&bytes[..read]).is_err() || cutting {
                break;
            }
        }
        // What was sent is read there to its end, and answered to nobody.
        let _ = server.shutdown(Shutdown::Write);
        let _ = client.shutdown(Shutdown::Both);
    }
}

fn back(mut server: UnixStream, mut client: TcpStream, cut: &AtomicBool) {
    let mut bytes = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = server.read(&mut bytes) {
        if !cut.load(Ordering::SeqCst) && client.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}
