//! A host as a rule or a request spells it. One host has one form here, so that two spellings of it
//! cannot be judged differently: lower case, punycode, no trailing dot, addresses as addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use idna::AsciiDenyList;

/// Longest name the DNS knows (RFC 1035), without the trailing dot.
const NAME_BYTES_MAX: usize = 253;

/// Longest label of a name (RFC 1035).
const LABEL_BYTES_MAX: usize = 63;

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name: `a-z`, `0-9`, `-`, `_` and dots.
    Name(String),
    /// An address; never an IPv4 address dressed as IPv6.
    Address(IpAddr),
}

/// Why a text is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// `user@host`.
    #[error("a user name before the host is not accepted")]
    User,
    /// Something no host has.
    #[error("the host has characters that no host name has")]
    Characters,
    /// Beyond what the DNS carries.
    #[error("the host name is too long")]
    TooLong,
    /// `2130706433`, `0x7f.1`, `0177.0.0.1`, `127.1`: resolvers differ about them.
    #[error("an IPv4 address is written as four decimal numbers, such as 192.0.2.1")]
    OddAddress,
    /// Not an address between brackets, or one without them.
    #[error("an IPv6 address is written in brackets, such as [2001:db8::1]")]
    BadIpv6,
    /// No port, or none between 1 and 65535.
    #[error("the port is missing or not a number from 1 to 65535")]
    Port,
}

impl Host {
    /// The host of this text, without a port.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if text.contains('@') {
            return Err(HostError::User);
        }
        if let Some(inside) = text.strip_prefix('[') {
            let inside = inside.strip_suffix(']').ok_or(HostError::BadIpv6)?;
            let address: Ipv6Addr = inside.parse().map_err(|_| HostError::BadIpv6)?;
            return Ok(Self::Address(address.to_canonical()));
        }
        if text.contains(':') {
            return Err(HostError::BadIpv6);
        }
        // A bound before IDNA, whose work grows with the text.
        if text.len() > NAME_BYTES_MAX * 4 {
            return Err(HostError::TooLong);
        }
        let ascii = idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::URL)
            .map_err(|_| HostError::Characters)?;
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        if name.len() > NAME_BYTES_MAX {
            return Err(HostError::TooLong);
        }
        name.split('.').try_for_each(check_label)?;
        let last = name.rsplit('.').next().unwrap_or_default();
        if is_number(last) {
            let address: Ipv4Addr = name.parse().map_err(|_| HostError::OddAddress)?;
            return Ok(Self::Address(address.into()));
        }
        Ok(Self::Name(name.to_owned()))
    }

    /// The host and port of `host:port`; the port may be missing when there is a usual one.
    pub fn with_port(text: &str, usual: Option<u16>) -> Result<(Self, u16), HostError> {
        if text.contains('@') {
            return Err(HostError::User);
        }
        if !text.starts_with('[') && text.matches(':').count() > 1 {
            return Err(HostError::BadIpv6);
        }
        // The colon of a port is behind the bracket.
        let colon = match text.rfind(']') {
            Some(bracket) => text
                .get(bracket..)
                .and_then(|rest| rest.find(':'))
                .map(|at| bracket + at),
            None => text.find(':'),
        };
        let (host, port) = match colon {
            Some(at) => {
                let (host, port) = text.split_at(at);
                (host, Some(port.get(1..).unwrap_or_default()))
            }
            None => (text, None),
        };
        let port = match port {
            // `u16::from_str` takes a plus sign.
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            Some(_) => None,
            None => usual,
        };
        let port = port.filter(|port| *port != 0).ok_or(HostError::Port)?;
        Ok((Self::parse(host)?, port))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

fn check_label(label: &str) -> Result<(), HostError> {
    if label.is_empty() {
        return Err(HostError::Empty);
    }
    if label.len() > LABEL_BYTES_MAX {
        return Err(HostError::TooLong);
    }
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if label.bytes().all(plain) {
        return Ok(());
    }
    Err(HostError::Characters)
}

/// Whether some resolver would take a name that ends so for an address (the rule of the URL
/// standard, "ends in a number").
fn is_number(label: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits(label) || label.strip_prefix("0x").is_some_and(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Host {
        Host::Name(text.to_owned())
    }

    fn address(text: &str) -> Host {
        Host::Address(text.parse().unwrap())
    }

    #[test]
    fn spellings_of_one_host_are_one() {
        for text in [
            "example.com",
            "EXAMPLE.com",
            "example.com.",
            "ｅｘａｍｐｌｅ。com",
        ] {
            assert_eq!(Host::parse(text), Ok(name("example.com")), "{text}");
        }
        for text in ["bücher.de", "BÜCHER.de", "xn--bcher-kva.de"] {
            assert_eq!(Host::parse(text), Ok(name("xn--bcher-kva.de")), "{text}");
        }
        for text in [
            "127.0.0.1",
            "[::ffff:127.0.0.1]",
            "[::FFFF:7f00:1]",
            "１２７.0.0.1",
        ] {
            assert_eq!(Host::parse(text), Ok(address("127.0.0.1")), "{text}");
        }
        assert_eq!(Host::parse("[0:0::1]"), Ok(address("::1")));
    }

    #[test]
    fn odd_spellings_of_addresses_are_refused_and_never_resolved() {
        for text in [
            "2130706433",
            "0x7f000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "127.1",
            "127.0.0.01",
            "1.2.3.4.5",
            "a.0x",
            "a.1",
        ] {
            assert_eq!(Host::parse(text), Err(HostError::OddAddress), "{text}");
        }
        for text in ["::1", "[::1", "[fe80::1%eth0]", "[127.0.0.1]", "[]"] {
            assert_eq!(Host::parse(text), Err(HostError::BadIpv6), "{text}");
        }
    }

    #[test]
    fn what_no_host_has_is_refused() {
        for text in [
            "", ".", "a..b", ".a", "a b", "a%2eb", "a/b", "a\\b", "a#b", "*.a", "a\u{0}b", "a,b",
        ] {
            assert!(Host::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Host::parse("user@host"), Err(HostError::User));
        assert_eq!(Host::parse(&"a".repeat(64)), Err(HostError::TooLong));
        assert_eq!(Host::parse(&"a.".repeat(200)), Err(HostError::TooLong));
    }

    #[test]
    fn a_port_is_a_plain_number() {
        let web = Some(443);
        assert_eq!(Host::with_port("a.b:8443", web), Ok((name("a.b"), 8443)));
        assert_eq!(Host::with_port("a.b", web), Ok((name("a.b"), 443)));
        assert_eq!(Host::with_port("[::1]:80", None), Ok((address("::1"), 80)));
        for text in [
            "a.b",
            "a.b:",
            "a.b:0",
            "a.b:+80",
            "a.b:65536",
            "a.b:80x",
            "a.b: 80",
            "[::1]80",
        ] {
            assert!(Host::with_port(text, None).is_err(), "{text}");
        }
        assert_eq!(Host::with_port("a@b:80", None), Err(HostError::User));
        assert!(Host::with_port("a:1:2", None).is_err());
    }
}
