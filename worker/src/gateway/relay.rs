//! The relay inside a sandbox: TCP on loopback there, the gateway's unix socket behind it. It runs
//! where nothing of the worker does, so it is plain threads and the standard library.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::domain::limits;

/// A thread only copies; the rest of the usual 2 MiB would count against the sandbox's memory.
const STACK_BYTES: usize = 128 * 1024;

/// Between two tries to take a connection when the last one failed for want of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Failures in a row after which the listener is taken for broken.
const FAILURES_MAX: usize = 100;

/// How long a client may go on sending what the gateway does not read any more; then its connection
/// is cut. It gets to read its answer meanwhile.
const LINGER: Duration = Duration::from_secs(1);

/// Hand each connection to the gateway's socket as it is. Returns only when the listener is broken.
pub fn run(listener: &TcpListener, socket: &Path) -> io::Error {
    serve(listener, socket, None)
}

/// Hand each connection to the one place that the gateway is asked for: `127.0.0.1:11434`. For
/// services of the worker's machine, which clients do not ask a proxy for; see
/// `Policy::local_services`.
pub fn forward(listener: &TcpListener, socket: &Path, target: &str) -> io::Error {
    serve(listener, socket, Some(target))
}

fn serve(listener: &TcpListener, socket: &Path, target: Option<&str>) -> io::Error {
    let places = Arc::new(Places::default());
    let mut failures = 0;
    loop {
        let place = places.take();
        match listener.accept() {
            Ok((client, _)) => {
                failures = 0;
                let (socket, target) = (socket.to_owned(), target.map(str::to_owned));
                // A connection that gets no thread is closed, and its client told so thereby.
                let _ = thread::Builder::new()
                    .stack_size(STACK_BYTES)
                    .spawn(move || {
                        let _place = place;
                        // What fails here, the client sees by the end of its connection.
                        let _ = carry(&client, &socket, target.as_deref());
                    });
            }
            Err(error) if failures >= FAILURES_MAX => return error,
            Err(_) => {
                failures += 1;
                thread::sleep(PAUSE);
            }
        }
    }
}

fn carry(client: &TcpStream, socket: &Path, target: Option<&str>) -> io::Result<()> {
    let mut gateway = UnixStream::connect(socket)?;
    if let Some(target) = target {
        ask(&mut gateway, target)?;
    }
    client.set_nodelay(true)?;
    let (up_from, up_to) = (client.try_clone()?, gateway.try_clone()?);
    let up = thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || upwards(&up_from, &up_to))?;
    // The end of one direction is passed on; the other one goes on until its own.
    let down = io::copy(&mut &gateway, &mut &*client);
    if down.is_err() {
        // The client is gone: nobody hears an answer, so nobody needs to answer.
        let _ = gateway.shutdown(Shutdown::Both);
    }
    let _ = client.shutdown(Shutdown::Write);
    let _ = up.join();
    down.map(drop)
}

fn upwards(client: &TcpStream, gateway: &UnixStream) {
    if io::copy(&mut &*client, &mut &*gateway).is_ok() {
        let _ = gateway.shutdown(Shutdown::Write);
        return;
    }
    // One of the two is broken. When it is the gateway, closing now would throw away the answer
    // that the client has not read yet (a reset): let it finish.
    let _ = client.set_read_timeout(Some(LINGER));
    let mut left = [0; 4096];
    let begun = std::time::Instant::now();
    while begun.elapsed() < LINGER && matches!((&*client).read(&mut left), Ok(1..)) {}
    let _ = client.shutdown(Shutdown::Read);
}

/// Ask the gateway for a tunnel, and read its answer but no byte of what comes after.
fn ask(gateway: &mut UnixStream, target: &str) -> io::Result<()> {
    write!(
        gateway,
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
    )?;
    let patience = limits::GATEWAY_LOOKUP_TIMEOUT + limits::GATEWAY_CONNECT_TIMEOUT * 2;
    gateway.set_read_timeout(Some(patience))?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= limits::RELAY_ANSWER_BYTES_MAX || gateway.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        answer.extend(byte);
    }
    gateway.set_read_timeout(None)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(io::ErrorKind::ConnectionRefused.into())
}

/// Counts the connections that are carried.
#[derive(Default)]
struct Places {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// One of them.
struct Place(Arc<Places>);

impl Places {
    /// Wait for one.
    fn take(self: &Arc<Self>) -> Place {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |taken: &mut usize| *taken >= limits::RELAY_CONNECTIONS_MAX;
        let waited = self.freed.wait_while(taken, full);
        *waited.unwrap_or_else(PoisonError::into_inner) += 1;
        Place(self.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_one();
    }
}
