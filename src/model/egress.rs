//! Where webhooks may go. Partners choose URLs and the hub calls them from inside its network, so these rules protect
//! everything that this machine can reach and partners cannot: the hub's own services, the network's, and cloud
//! metadata (SSRF).
//!
//! Two checks. [`parse_url`] reads a URL once, as browsers do (WHATWG), and refuses every URL that is not plainly an
//! address on the Internet; it runs when an endpoint is created and again for each call. [`EgressRules::allows`] judges
//! an address; it runs for every address that a name resolves to, and only allowed addresses are connected to. The name
//! rules in [`parse_url`] only report mistakes early: the address check decides.

// Address types are plain numbers; `core` has them without sockets.
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, SyntaxViolation, Url};

/// Longest URL, in bytes, both as written and percent-encoded.
pub const URL_BYTES: usize = 2048;

/// IPv4 networks that are not public (IANA's special-purpose registry).
const NOT_PUBLIC_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 0, 8),       // this network; Linux takes 0.0.0.0 for itself
    v4(10, 0, 0, 0, 8),      // private
    v4(100, 64, 0, 0, 10),   // carriers' own
    v4(127, 0, 0, 0, 8),     // loopback
    v4(169, 254, 0, 0, 16),  // link-local, and clouds' metadata
    v4(172, 16, 0, 0, 12),   // private
    v4(192, 0, 0, 0, 24),    // protocol assignments
    v4(192, 0, 2, 0, 24),    // documentation
    v4(192, 88, 99, 0, 24),  // 6to4 relays
    v4(192, 168, 0, 0, 16),  // private
    v4(198, 18, 0, 0, 15),   // benchmarks
    v4(198, 51, 100, 0, 24), // documentation
    v4(203, 0, 113, 0, 24),  // documentation
    v4(224, 0, 0, 0, 4),     // multicast
    v4(240, 0, 0, 0, 4),     // reserved, and broadcast
];

/// The IPv6 space allotted to the Internet. Loopback, unique local, link-local, site-local and multicast addresses,
/// NAT64, embedded IPv4, discard and segment routing lie outside …
const INTERNET_V6: Ipv6Net = v6(0x2000, 0, 3);
/// … and these networks, which are not public either, within.
const NOT_PUBLIC_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),     // protocol assignments, Teredo among them
    v6(0x2001, 0xdb8, 32), // documentation
    v6(0x2002, 0, 16),     // 6to4
    v6(0x3fff, 0, 20),     // documentation
];

/// Never called, even if allowed: clouds hand out machine credentials there.
const NEVER: [IpNet; 6] = [
    IpNet::V4(v4(169, 254, 0, 0, 16)),
    IpNet::V4(v4(100, 100, 100, 200, 32)), // Alibaba
    IpNet::V4(v4(168, 63, 129, 16, 32)),   // Azure; it looks public
    IpNet::V6(v6(0xfe80, 0, 10)),
    IpNet::V6(v6(0xfd00, 0xec2, 32)), // Amazon
    IpNet::V6(v6(0xfd20, 0xce, 32)),  // Google
];

/// Suffixes of names that only resolve inside a network (RFC 6762 with its appendix G, RFC 8375, ICANN for `internal`).
/// Names without a dot are treated alike.
const INSIDE: [&str; 9] =
    [".local", ".internal", ".home.arpa", ".localdomain", ".intranet", ".private", ".corp", ".home", ".lan"];

/// Headers that the hub sets, that frame a request, or that proxies use to report its origin. Endpoints may not set
/// them.
const RESERVED_HEADERS: [&str; 18] = [
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-real-ip",
    "x-timestamp",
    "http2-settings",
];
const RESERVED_PREFIXES: [&str; 4] = ["webhook-", "x-signature", "x-forwarded-", "proxy-"];

/// The operator's settings for webhook destinations.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EgressRules {
    /// Networks that may be called although they are not public.
    pub allow: Vec<IpNet>,
    /// Networks that may not be called although they are public or allowed, such as the operator's own.
    pub deny: Vec<IpNet>,
    /// Whether http:// URLs are accepted.
    pub allow_http: bool,
}

impl EgressRules {
    /// Whether an address may be called. One that embeds an IPv4 address may be called only if that address may be.
    pub fn allows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        if within(&NEVER) {
            return false;
        }
        let public = match ip {
            IpAddr::V4(v4) => !NOT_PUBLIC_V4.iter().any(|network| network.contains(&v4)),
            IpAddr::V6(v6) => {
                if embedded(v6).into_iter().flatten().any(|v4| !self.allows(v4.into())) {
                    return false;
                }
                INTERNET_V6.contains(&v6) && !NOT_PUBLIC_V6.iter().any(|network| network.contains(&v6))
            }
        };
        !within(&self.deny) && (public || within(&self.allow))
    }

    fn allows_host(&self, host: &Host<&str>) -> bool {
        match host {
            Host::Ipv4(ip) => self.allows((*ip).into()),
            Host::Ipv6(ip) => self.allows((*ip).into()),
            // The same host under another name: certificates, logs and comparisons would see two hosts.
            Host::Domain(name) if name.ends_with('.') => false,
            Host::Domain(name) if *name == "localhost" || name.ends_with(".localhost") => {
                self.allows(Ipv4Addr::LOCALHOST.into()) || self.allows(Ipv6Addr::LOCALHOST.into())
            }
            // Useful only if some internal network is allowed; the address check then decides.
            Host::Domain(name) if !name.contains('.') || INSIDE.iter().any(|ending| name.ends_with(ending)) => {
                !self.allow.is_empty()
            }
            Host::Domain(_) => true,
        }
    }
}

/// The IPv4 addresses that an IPv6 address leads to through translation or tunnels. (Mapped ones are IPv4 already.)
fn embedded(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 3] {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    let last = v4(s[6], s[7]);
    match s {
        // Compatible (RFC 4291), but for `::` and `::1`, which are no IPv4; translated (RFC 2765).
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 3],
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => [Some(last), None, None],
        // NAT64 (RFC 6052, RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => [Some(last), None, None],
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => [Some(v4(high, low)), isatap(s), None],
        // Teredo (RFC 4380): the server's, and the client's with its bits inverted.
        [0x2001, 0, high, low, ..] => [Some(v4(high, low)), Some(v4(!s[6], !s[7])), isatap(s)],
        _ => [isatap(s), None, None],
    }
}

/// ISATAP (RFC 5214): any network, then `0:5efe` or `200:5efe`, then IPv4.
fn isatap(s: [u16; 8]) -> Option<Ipv4Addr> {
    let is = s[4] & !0x0200 == 0 && s[5] == 0x5efe;
    is.then(|| Ipv4Addr::from_bits(u32::from(s[6]) << 16 | u32::from(s[7])))
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

/// A URL that passed `parse_url`, in normal form. The checked text is the one that is stored, shown and called.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl(Url);

impl EndpointUrl {
    /// The URL in normal form.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The parsed URL.
    pub fn into_url(self) -> Url {
        self.0
    }
}

/// Shows only the host, because a path can be a credential.
impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointUrl {}", self.0.host_str().unwrap_or_default())
    }
}

/// Why a URL may not be called. It describes the URL as written and never the network behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForbiddenUrl {
    /// A reason of `error::REASONS`.
    pub reason: &'static str,
    /// The fault, as a sentence about the URL without its subject.
    pub detail: Cow<'static, str>,
}

fn forbidden<T>(reason: &'static str, detail: impl Into<Cow<'static, str>>) -> Result<T, ForbiddenUrl> {
    Err(ForbiddenUrl { reason, detail: detail.into() })
}

/// Parses a partner's URL and checks it by these rules. The addresses behind its name are checked for each call, not
/// here.
///
/// # Errors
/// The first rule that the URL breaks.
pub fn parse_url(text: &str, rules: &EgressRules) -> Result<EndpointUrl, ForbiddenUrl> {
    if text.len() > URL_BYTES {
        return forbidden("url_invalid", format!("must not have more than {URL_BYTES} bytes"));
    }
    // Browsers repair some URLs (a backslash, a line break, a space). Such URLs are refused, because two parsers may
    // read them differently.
    let forgiven = Cell::new(None);
    let see = |violation| match violation {
        SyntaxViolation::EmbeddedCredentials | SyntaxViolation::UnencodedAtSign => (),
        other => forgiven.set(Some(other)),
    };
    let url = match Url::options().syntax_violation_callback(Some(&see)).parse(text) {
        Ok(url) => url,
        Err(error) => return forbidden("url_invalid", format!("is not a URL: {error}")),
    };
    if let Some(violation) = forgiven.get() {
        return forbidden("url_invalid", format!("is not a well-formed URL: {violation}"));
    }
    match url.scheme() {
        "https" => (),
        "http" if rules.allow_http => (),
        _ => {
            return forbidden(
                "url_scheme",
                "must begin with https://; http:// works only if the operator allows it (--webhook-allow-http)",
            );
        }
    }
    // An empty user name is dropped by the parser; only its @ in the text shows it.
    let authority = text.split(['/', '?', '#']).nth(2).unwrap_or_default();
    if !url.username().is_empty() || url.password().is_some() || authority.contains('@') {
        return forbidden("url_userinfo", "must not name a user or a password");
    }
    if url.fragment().is_some() {
        return forbidden("url_fragment", "must not have a fragment (#…): it would not be sent");
    }
    match url.host() {
        Some(host) if rules.allows_host(&host) => (),
        _ => {
            return forbidden(
                "url_host_not_allowed",
                "must name a public host; others work only if the operator allows them (--webhook-allow-network)",
            );
        }
    }
    if !matches!(url.port_or_known_default(), Some(80 | 443 | 1024..)) {
        return forbidden("url_port", "must use port 443, 80, or one from 1024 on");
    }
    if url.as_str().len() > URL_BYTES {
        return forbidden("url_invalid", format!("must not have more than {URL_BYTES} bytes when percent-encoded"));
    }
    Ok(EndpointUrl(url))
}

/// Whether a header is reserved, so that an endpoint's owner may not set it. Ignores case.
pub fn is_reserved_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    RESERVED_HEADERS.contains(&name.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Parses a network such as `10.0.0.0/8`, or a single address.
///
/// # Errors
/// A text with the expected form.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    let address = || text.trim().parse::<IpAddr>().map(IpNet::from);
    let network = text.trim().parse::<IpNet>().or_else(|_| address());
    network.map_err(|_| "write a network as 10.0.0.0/8 or fd00::/8, or an address".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::REASONS;

    fn nowhere_else() -> EgressRules {
        EgressRules::default()
    }

    fn allowing(networks: &[&str]) -> EgressRules {
        let allow = networks.iter().map(|text| parse_network(text).unwrap()).collect();
        EgressRules { allow, ..EgressRules::default() }
    }

    /// S0-44: the first and the last address of every network that is not public, and their neighbours outside.
    #[test]
    fn non_public_addresses_are_refused() {
        let networks = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 \
            192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 \
            240.0.0.0/4 255.255.255.255/32 ::/128 ::1/128 ::/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/32 \
            2001:db8::/32 3fff::/20 2002::/16 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8 fd00:ec2::254/128 \
            169.254.169.254/32 100.100.100.200/32 168.63.129.16/32 ::ffff:127.0.0.0/104 ::ffff:169.254.169.254/128";
        for text in networks.split_whitespace() {
            let network: IpNet = text.parse().unwrap();
            let (first, last) = (network.network(), network.broadcast());
            assert!(!nowhere_else().allows(first) && !nowhere_else().allows(last), "{network}");
        }
        let public = "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
            169.253.255.255 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 \
            223.255.255.255 ::ffff:1.1.1.1 2001:200:: 2001:4860:4860::8888 2606:4700::1111 2a00:1450::1 2003::1";
        for text in public.split_whitespace() {
            assert!(nowhere_else().allows(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn operator_rules_allow_and_deny_networks() {
        let rules = allowing(&["127.0.0.0/8", "10.1.0.0/16", "fd00::/8", "64:ff9b::/96", "::1"]);
        for (text, allowed) in [
            ("127.8.8.8", true),
            ("::ffff:127.0.0.1", true),
            ("::1", true),
            ("10.1.2.3", true),
            ("10.2.0.1", false),
            ("fd12::1", true),
            ("fd00:ec2::254", false),
            ("64:ff9b::1.1.1.1", true),
            ("64:ff9b::10.1.0.1", true),
            ("64:ff9b::192.168.0.1", false),
            ("8.8.8.8", true),
        ] {
            assert_eq!(rules.allows(text.parse().unwrap()), allowed, "{text}");
        }
        let all = allowing(&["0.0.0.0/0", "::/0"]);
        for metadata in ["169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fe80::1"] {
            assert!(!all.allows(metadata.parse().unwrap()), "{metadata} is called never");
        }
        assert!(all.allows("192.168.0.1".parse().unwrap()));
        let deny = ["8.8.8.0/24", "2001:4860::/32"].map(|text| parse_network(text).unwrap()).to_vec();
        let rules = EgressRules { deny, ..EgressRules::default() };
        assert!(!rules.allows("8.8.8.8".parse().unwrap()) && !rules.allows("2001:4860::1".parse().unwrap()));
        assert!(!rules.allows("::ffff:8.8.8.8".parse().unwrap()) && rules.allows("8.8.4.4".parse().unwrap()));
        let rules = EgressRules { deny: vec![parse_network("10.1.0.0/16").unwrap()], ..allowing(&["10.0.0.0/8"]) };
        assert!(rules.allows("10.2.0.1".parse().unwrap()) && !rules.allows("10.1.0.1".parse().unwrap()));
    }

    /// An IPv4 address in every IPv6 form that embeds one; `any` fills the free bits.
    fn clothed(v4: Ipv4Addr, any: u128) -> Vec<Ipv6Addr> {
        let bits = u128::from(v4.to_bits());
        let at = |prefix: &str| prefix.parse::<Ipv6Addr>().unwrap().to_bits();
        let network = any & !((1 << 64) - 1);
        let mut all = vec![
            at("::ffff:0:0") | bits,
            at("::ffff:0:0:0") | bits,
            at("64:ff9b::") | bits,
            at("64:ff9b:1::") | (any & 0xffff_ffff_ffff << 32) | bits,
            at("2002::") | bits << 80 | (any & ((1 << 80) - 1)),
            at("2001::") | bits << 64 | (any & ((1 << 64) - 1)),
            at("2001::") | (any & 0xffff_ffff_ffff_ffff << 32) | u128::from(!v4.to_bits()),
            network | 0x5efe << 32 | bits,
            network | 0x0200_5efe << 32 | bits,
        ];
        if bits > 1 {
            all.push(bits);
        }
        all.into_iter().map(Ipv6Addr::from_bits).collect()
    }

    fn networks() -> impl Strategy<Value = Vec<IpNet>> {
        let four = (any::<u32>(), 0..=32u8).prop_map(|(ip, n)| IpNet::new(Ipv4Addr::from_bits(ip).into(), n).unwrap());
        let six = (any::<u128>(), 0..=128u8).prop_map(|(ip, n)| IpNet::new(Ipv6Addr::from_bits(ip).into(), n).unwrap());
        prop::collection::vec(prop_oneof![four, six, Just("::/0".parse().unwrap())], 0..4)
    }

    /// Addresses on both sides of each refused network's borders: most random addresses are public.
    fn addresses() -> impl Strategy<Value = Ipv4Addr> {
        let near = prop::sample::select(NOT_PUBLIC_V4.to_vec()).prop_flat_map(|network| {
            let (first, last) = (network.network().to_bits(), network.broadcast().to_bits());
            (first.saturating_sub(2)..=last.saturating_add(2)).prop_map(Ipv4Addr::from_bits)
        });
        prop_oneof![any::<u32>().prop_map(Ipv4Addr::from_bits), near]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

        /// For all operator rules: no IPv6 address bypasses the rule for an IPv4 address.
        #[test]
        fn ipv6_address_embedding_a_refused_ipv4_is_refused(
            v4 in addresses(), free in any::<u128>(), allow in networks(), deny in networks()
        ) {
            let rules = EgressRules { allow, deny, allow_http: false };
            for v6 in clothed(v4, free) {
                prop_assert!(!rules.allows(v6.into()) || rules.allows(v4.into()), "{v6} carries {v4}, {rules:?}");
            }
        }

        /// No text causes a panic, and an accepted URL is in normal form and stays so.
        #[test]
        fn parse_url_never_panics_and_normal_form_is_stable(
            text in "(https?://)?[ -~\\PC]{0,40}(:[0-9]{0,6})?[/?#@\\\\]?[ -~\\PC]{0,20}",
        ) {
            let rules = EgressRules { allow_http: true, ..EgressRules::default() };
            match parse_url(&text, &rules) {
                Ok(url) => prop_assert_eq!(parse_url(url.as_str(), &rules), Ok(url.clone())),
                Err(why) => prop_assert!(REASONS.iter().any(|r| r.word == why.reason && r.status == 422)),
            }
        }
    }

    #[track_caller]
    fn reason(url: &str, rules: &EgressRules) -> &'static str {
        parse_url(url, rules).expect_err(url).reason
    }

    #[test]
    fn valid_urls_are_returned_in_normal_form() {
        for (url, normal) in [
            ("https://example.com", "https://example.com/"),
            ("HTTPS://Example.COM:443/Path?q=1%2f", "https://example.com/Path?q=1%2f"),
            ("https://example.com:8443/a/../b", "https://example.com:8443/b"),
            ("https://bücher.example/", "https://xn--bcher-kva.example/"),
            ("https://134744072/", "https://8.8.8.8/"),
            ("https://[2606:4700:0::1111]/", "https://[2606:4700::1111]/"),
            ("https://example.com/a@b?c@d", "https://example.com/a@b?c@d"),
        ] {
            assert_eq!(parse_url(url, &nowhere_else()).expect(url).as_str(), normal);
        }
        let url = parse_url("https://example.com/hook/SECRET?key=SECRET", &nowhere_else()).unwrap();
        assert_eq!(format!("{url:?}"), "EndpointUrl example.com");
    }

    #[test]
    fn internal_names_need_an_allowed_network() {
        let loopback = allowing(&["127.0.0.0/8"]);
        let inside = allowing(&["10.0.0.0/8"]);
        for url in ["https://orders/", "https://orders.internal/", "https://orders.shop.svc.cluster.local/"] {
            assert_eq!(reason(url, &nowhere_else()), "url_host_not_allowed");
            assert!(parse_url(url, &inside).is_ok(), "{url}");
        }
        for url in ["https://localhost/", "https://hooks.localhost:8443/"] {
            assert_eq!(reason(url, &nowhere_else()), "url_host_not_allowed");
            assert_eq!(reason(url, &inside), "url_host_not_allowed");
            assert!(parse_url(url, &loopback).is_ok(), "{url}");
        }
        assert_eq!(reason("https://localhost./", &loopback), "url_host_not_allowed");
        assert_eq!(reason("http://localhost/", &loopback), "url_scheme");
        let plain = EgressRules { allow_http: true, ..loopback };
        assert_eq!(parse_url("http://127.0.0.1:8090/", &plain).unwrap().as_str(), "http://127.0.0.1:8090/");
        assert!(parse_url("http://example.com/", &plain).is_ok());
        assert_eq!(reason("ftp://example.com/", &plain), "url_scheme");
    }

    #[test]
    fn hub_headers_are_reserved() {
        for name in ["Host", "content-TYPE", "Webhook-Id", "x-signature", "X-Signature-Next", "X-Forwarded-For", "TE"] {
            assert!(is_reserved_header(name), "{name}");
        }
        for name in ["Authorization", "X-Api-Key", "x-tenant", "cookie"] {
            assert!(!is_reserved_header(name), "{name}");
        }
    }

    #[test]
    fn networks_parse() {
        for (text, read) in [("10.0.0.0/8", "10.0.0.0/8"), ("127.0.0.1", "127.0.0.1/32"), (" ::1 ", "::1/128")] {
            assert_eq!(parse_network(text).map(|n| n.to_string()), Ok(read.to_owned()));
        }
        for text in ["", "10.0.0.0/33", "localhost", "10/8", "0177.1"] {
            assert!(parse_network(text).is_err(), "{text}");
        }
    }
}
