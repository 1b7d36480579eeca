//! Networks as origins of callers.

use core::net::IpAddr;

/// The network under which an address is counted: an IPv4 address itself, an IPv6 address by its /64, because one
/// caller may own a whole /64.
pub fn of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ipv6_addresses_of_one_64_count_as_one() {
        for (address, of) in [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(super::of(address.parse().unwrap()).to_string(), of);
        }
    }
}
