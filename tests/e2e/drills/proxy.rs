//! A TCP proxy that can cut, delay and stall what goes through it. Knows nothing of what that is.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// One read.
const READ_BYTES: usize = 16 * 1024;
/// A stalled connection looks whether it may go on this often.
const LOOK_EVERY: Duration = Duration::from_millis(5);

#[derive(Default)]
struct State {
    upstream: String,
    ended: AtomicBool,
    delay_ms: AtomicU64,
    stalled: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl State {
    fn cut(&self) {
        for connection in self.open.lock().expect("no thread panics with it").drain(..) {
            // It may be closed already.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Passes on what one end says until it ends.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; READ_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            while self.stalled.load(Ordering::SeqCst) && !self.ended.load(Ordering::SeqCst) {
                std::thread::sleep(LOOK_EVERY);
            }
            std::thread::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst)));
            if to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// Listens on a port of its own until it is dropped.
pub struct Proxy {
    address: String,
    state: Arc<State>,
    accepting: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In front of a server, which need not be there yet.
    pub fn of(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let state = Arc::new(State { upstream: upstream.to_owned(), ..State::default() });
        let accepting = std::thread::spawn({
            let state = Arc::clone(&state);
            move || accept_all(&listener, &state)
        });
        Self { address, state, accepting: Some(accepting) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks all that is open.
    pub fn cut(&self) {
        self.state.cut();
    }

    /// Each piece waits for so long before it is passed on.
    pub fn delay(&self, by: Duration) {
        self.state.delay_ms.store(by.as_millis() as u64, Ordering::SeqCst);
    }

    /// Nothing is passed on, and nobody is told.
    pub fn stall(&self, stalled: bool) {
        self.state.stalled.store(stalled, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.state.cut();
        // Wakes who accepts.
        let _ = TcpStream::connect(&self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept_all(listener: &TcpListener, state: &Arc<State>) {
    for client in listener.incoming().flatten() {
        if state.ended.load(Ordering::SeqCst) {
            return;
        }
        // Without a server the connection closes, as a refused one does.
        let Ok(server) = TcpStream::connect(&state.upstream) else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { continue };
        let both = [client.try_clone(), server.try_clone()].into_iter().flatten();
        state.open.lock().expect("no thread panics with it").extend(both);
        for (from, to) in [(client, server), (server_too, client_too)] {
            let state = Arc::clone(state);
            std::thread::spawn(move || state.pump(from, to));
        }
    }
}
