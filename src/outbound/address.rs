//! Which network addresses may be reached.
//!
//! The resolver hands out allowed addresses only, and the connection is made to exactly those: a
//! name that answers differently the second time gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::Forbidden;

/// Looks names up and leaves out forbidden addresses.
#[derive(Debug, Clone, Copy)]
pub struct GuardedResolver {
    pub allow_private: bool,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
            let (allowed, other): (Vec<_>, Vec<_>) =
                found.partition(|address| allow_private || !is_forbidden(address.ip()));
            if allowed.is_empty() && !other.is_empty() {
                let why = format!("`{host}` is an address inside of this network");
                return Err(Forbidden(why).into());
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

/// Addresses that are not of the public internet, also when they hide inside of another family.
pub(super) fn is_forbidden(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_forbidden_v4(ip),
        IpAddr::V6(ip) => is_forbidden_v6(ip),
    }
}

fn is_forbidden_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_multicast()
        || ip.is_documentation()
        || a == 0
        // shared by carriers, protocol assignments, benchmarks, reserved
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19))
        || a >= 240
        // the host of virtual machines of Azure, which gives out their settings
        || ip.octets() == [168, 63, 129, 16]
}

fn is_forbidden_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        is_forbidden_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // addresses of the other family: written in this one, and translated by NAT64 and by 6to4
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            embedded(high, low)
        }
        [0x2002, high, low, ..] => embedded(high, low),
        // protocol assignments (Teredo, benchmarks, ORCHID), documentation
        [0x2001, second, ..] => second < 0x200 || second == 0xdb8,
        [first, ..] if first & 0xfff0 == 0x3ff0 => true,
        // All that is given out for the public internet.
        [first, ..] => first & 0xe000 != 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_allowed() {
        for (text, forbidden) in [
            ("8.8.8.8", false),
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("172.16.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("169.254.169.254", true),
            ("100.64.0.1", true),
            ("0.0.0.0", true),
            ("198.18.0.1", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("::", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:8.8.8.8", false),
            ("::7f00:1", true),
            ("64:ff9b::a00:1", true),
            ("64:ff9b::808:808", false),
            ("2002:7f00:1::", true),
            ("2001:0:1::", true),
            ("fc00::1", true),
            ("fd12::1", true),
            ("fe80::1", true),
            ("ff02::1", true),
            ("2606:4700::1111", false),
            ("2001:4860:4860::8888", false),
            ("2a00:1450::1", false),
            ("168.63.129.16", true),
            ("64:ff9b::a83f:8110", true),
            ("64:ff9b:1::808:808", true),
            ("::ffff:0:8.8.8.8", true),
            ("::8.8.8.8", true),
            ("100::1", true),
            ("2001:2::1", true),
            ("2001:10::1", true),
            ("2001:20::1", true),
            ("2001:db8::1", true),
            ("3fff::1", true),
            ("5f00::1", true),
            ("4000::1", true),
            ("fec0::1", true),
        ] {
            assert_eq!(is_forbidden(text.parse().unwrap()), forbidden, "{text}");
        }
    }
}
