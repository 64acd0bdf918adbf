//! Where a server's traces go in a bench that is observed: something that takes them, as a collector would, and keeps
//! nothing. Knows nothing of traces.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Larger bodies are no traces.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// Takes traces as long as this process lives.
#[derive(Debug)]
pub struct TraceSink {
    address: SocketAddr,
}

impl TraceSink {
    /// On a free loopback port.
    ///
    /// # Errors
    /// When there is none.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                // Ends with its connection, whose server ends with the bench.
                std::thread::spawn(move || while matches!(take(&connection), Ok(true)) {});
            }
        });
        Ok(Self { address })
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// One request; whether there may be another.
fn take(mut connection: &TcpStream) -> io::Result<bool> {
    let mut reader = BufReader::new(connection);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        match line.trim().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().map_err(io::Error::other)?;
            }
            None if line.trim().is_empty() => break,
            _ => {}
        }
    }
    if length > BODY_BYTES_MAX {
        return Ok(false);
    }
    io::copy(&mut reader.take(length), &mut io::sink())?;
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")?;
    Ok(true)
}
