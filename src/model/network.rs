//! Networks as places that callers come from.

use core::net::IpAddr;

/// The network that an address is counted as: an IPv6 network of 64 bits has more addresses than can be counted.
pub fn of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_network_of_ipv6_is_one_place() {
        for (address, of) in [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(super::of(address.parse().unwrap()).to_string(), of);
        }
    }
}
