//! What kind of place an address is. A name may lead only to public ones: what is reachable from the
//! worker and not from the Internet (its own services, the metadata of a cloud) is not the agent's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Anywhere on the Internet.
    Public,
    /// A network of somebody's own: RFC 1918, shared (carrier grade) space, unique local; and the
    /// ranges for benchmarks and documentation, which closed networks answer names with.
    Private,
    /// The worker's own machine.
    Loopback,
    /// The link, and services that a cloud gives its machines (credentials among them).
    Local,
    /// Nowhere a connection could go.
    Nowhere,
}

/// Metadata and host services of clouds that do not have link-local addresses: Alibaba, Oracle, Azure.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// The same by IPv6: AWS, Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// Where this address leads, by the special-purpose registries of IANA (RFC 6890).
pub(super) fn place(address: IpAddr) -> Place {
    match address.to_canonical() {
        IpAddr::V4(address) => place_v4(address),
        IpAddr::V6(address) => place_v6(address),
    }
}

fn place_v4(address: Ipv4Addr) -> Place {
    if METADATA_V4.contains(&address) {
        return Place::Local;
    }
    match address.octets() {
        [127, ..] => Place::Loopback,
        [169, 254, ..] => Place::Local,
        [10, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        | [100, 64..=127, ..]
        | [198, 18..=19, ..]
        | [192, 0, 2, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Place::Private,
        [0, ..] | [192, 0, 0, _] | [192, 88, 99, _] | [224..=255, ..] => Place::Nowhere,
        _ => Place::Public,
    }
}

fn place_v6(address: Ipv6Addr) -> Place {
    if METADATA_V6.contains(&address) {
        return Place::Local;
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Place::Loopback,
        // NAT64 (RFC 6052): the IPv4 address behind it is what is reached.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => place_v4(embedded(high, low)),
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Place::Private,
        [0xfe80..=0xfebf, ..] => Place::Local,
        // 6to4: whatever gateway there is unwraps it towards the IPv4 address within.
        [0x2002, high, low, ..] => place_v4(embedded(high, low)),
        // Teredo, benchmarking, ORCHID and the rest of 2001::/23.
        [0x2001, 0..=0x1ff, ..] => Place::Nowhere,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Place::Private,
        [0x2000..=0x3fff, ..] => Place::Public,
        _ => Place::Nowhere,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_special_range_is_known() {
        let cases = [
            (
                Place::Public,
                "8.8.8.8 100.63.255.255 100.128.0.0 172.15.0.1 172.32.0.1 192.0.1.1 223.255.255.255 2606:4700::1111 2a00::1 64:ff9b::808:808 ::ffff:8.8.8.8",
            ),
            (
                Place::Private,
                "10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1 fc00::1 fd12::1 fec0::1 64:ff9b::a00:1 2002:a00:1::1 ::ffff:10.0.0.1",
            ),
            (
                Place::Loopback,
                "127.0.0.1 127.255.255.254 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1 2002:7f00:1::",
            ),
            (
                Place::Local,
                "169.254.169.254 fe80::1 fd00:ec2::254 fd20:ce::254 100.100.100.200 168.63.129.16 192.0.0.192 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe",
            ),
            (
                Place::Nowhere,
                "0.0.0.0 0.1.2.3 224.0.0.1 240.0.0.1 255.255.255.255 :: ff02::1 2001::1 100::1 ::7f00:1 64:ff9b:1::1 5f00::1",
            ),
        ];
        for (expected, addresses) in cases {
            for text in addresses.split(' ') {
                assert_eq!(place(text.parse().unwrap()), expected, "{text}");
            }
        }
    }
}
