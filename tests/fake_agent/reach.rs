//! What the agent can connect to: `tcp:HOST:PORT`, `udp:HOST:PORT`, `unix:PATH`,
//! `abstract:NAME`, and `pair:PATH` with one of a pair of datagram sockets.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// What is sent to whoever is reached.
const HELLO: &[u8] = b"hello";

/// Try all; write a line for each: what it was, and `reached` or the error.
pub(crate) fn all(step: &Value) -> anyhow::Result<()> {
    let mut said = String::new();
    for to in step["to"].as_array().context("reach needs addresses")? {
        let to = to.as_str().unwrap_or_default();
        match one(to) {
            Ok(()) => said.push_str(&format!("{to} reached\n")),
            Err(error) => said.push_str(&format!("{to} {error}\n")),
        }
    }
    let file = step["write"].as_str().context("reach writes a file")?;
    Ok(std::fs::write(file, said)?)
}

fn one(to: &str) -> anyhow::Result<()> {
    let (kind, address) = to.split_once(':').context("an address has a kind")?;
    match kind {
        "tcp" => {
            let wait = Duration::from_secs(5);
            let mut stream = TcpStream::connect_timeout(&address.parse()?, wait)?;
            stream.write_all(HELLO)?;
        }
        "udp" => drop(UdpSocket::bind("0.0.0.0:0")?.send_to(HELLO, address)?),
        "unix" => drop(UnixStream::connect(address)?),
        "pair" => {
            let (one, _other) = UnixDatagram::pair()?;
            one.connect(address)?;
            one.send(HELLO)?;
        }
        "abstract" => {
            let name = SocketAddr::from_abstract_name(address)?;
            drop(UnixStream::connect_addr(&name)?);
        }
        other => bail!("{other} is no kind of address"),
    }
    Ok(())
}
