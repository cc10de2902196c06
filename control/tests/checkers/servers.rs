//! Servers that do as they are told, each in a thread.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// When somebody came.
pub(crate) type Visits = Arc<Mutex<Vec<Instant>>>;

/// A port on which nothing listens.
pub(crate) fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

pub(crate) struct Tcp {
    pub(crate) address: SocketAddr,
    pub(crate) visits: Visits,
}

impl Tcp {
    /// Serves connections one after the other.
    pub(crate) fn start(serve: impl Fn(&mut TcpStream) -> io::Result<()> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let visits = Visits::default();
        let noted = Arc::clone(&visits);
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                noted.lock().unwrap().push(Instant::now());
                // The check may be gone before: that is its right.
                let _ = serve(&mut stream);
            }
        });
        Self { address, visits }
    }

    /// Accepts and says nothing, until the client goes.
    pub(crate) fn silent() -> Self {
        Self::start(|stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            while stream.read(&mut [0; 512])? > 0 {}
            Ok(())
        })
    }

    /// Accepts and resets.
    pub(crate) fn resetting() -> Self {
        Self::start(|stream| socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO)))
    }
}

/// Says the lines, and between them waits for what the client has to say.
pub(crate) fn say(stream: &mut TcpStream, lines: &[Vec<u8>]) -> io::Result<()> {
    for (number, line) in lines.iter().enumerate() {
        if number > 0 && stream.read(&mut [0; 512])? == 0 {
            return Ok(());
        }
        stream.write_all(line)?;
    }
    Ok(())
}

/// Says the same until nobody listens.
pub(crate) fn flood(stream: &mut TcpStream, line: &[u8]) -> io::Result<()> {
    loop {
        stream.write_all(line)?;
    }
}

pub(crate) struct Udp {
    pub(crate) address: SocketAddr,
    pub(crate) visits: Visits,
}

impl Udp {
    pub(crate) fn start(answer: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let visits = Visits::default();
        let noted = Arc::clone(&visits);
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                noted.lock().unwrap().push(Instant::now());
                if let Some(answer) = answer(&buffer[..length]) {
                    // The check may be gone before: that is its right.
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Self { address, visits }
    }
}
