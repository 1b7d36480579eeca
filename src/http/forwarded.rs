//! Reads the caller's address from a proxy's header: X-Forwarded-For and similar headers (one address or a list), and
//! Forwarded (RFC 7239). Our own proxy adds the last entry; the entries before it come from the caller and are not
//! trusted.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::http::HeaderMap;

use super::field::{split_unquoted, unquote};

/// The greatest length of a name that a proxy gives a caller whose address it hides.
const HIDDEN_CHARS: usize = 64;

/// The last entry of the header `name` over all its lines: an address, or the name under which the proxy hides it. None
/// if the header is missing or its last entry is malformed.
pub fn caller_address(headers: &HeaderMap, name: &str) -> Option<String> {
    for line in headers.get_all(name).iter().rev() {
        // A line that cannot be read ends the search: skipping it would make an entry before it the last one.
        let line = line.to_str().ok()?;
        let Some(entry) = split_unquoted(line, ',').into_iter().map(str::trim).rfind(|entry| !entry.is_empty()) else {
            continue;
        };
        return if name.eq_ignore_ascii_case("forwarded") {
            parse_node(&parameter_for(entry)?)
        } else {
            parse_node(&unquote(entry)?)
        };
    }
    None
}

/// The value of the only `for` parameter in an element of Forwarded.
fn parameter_for(element: &str) -> Option<String> {
    let mut found =
        split_unquoted(element, ';').into_iter().filter_map(|pair| pair.split_once('=')).filter_map(|(name, value)| {
            let is_for = name.trim().eq_ignore_ascii_case("for");
            is_for.then(|| unquote(value.trim()))
        });
    let one = found.next()??;
    if found.next().is_some() { None } else { Some(one) }
}

/// Parses an IPv4 or IPv6 address, with or without brackets, zone and port, or an obfuscated `_name`.
fn parse_node(text: &str) -> Option<String> {
    let ported = |port: &str| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let digits = (1..=5).contains(&port.len()) && port.chars().all(|c| c.is_ascii_digit());
        digits || port.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.chars().all(is_name))
    };
    let v6 = |text: &str| text.split('%').next()?.parse::<Ipv6Addr>().ok();
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(ported);
        return v6(address).filter(|_| port).map(|address| address.to_canonical().to_string());
    }
    if let Some(address) = v6(text) {
        return Some(address.to_canonical().to_string());
    }
    let host = match text.split_once(':') {
        Some((host, port)) => Some(host).filter(|_| ported(port))?,
        None => text,
    };
    if ported(host) && host.starts_with('_') && host.len() <= HIDDEN_CHARS {
        return Some(host.to_owned());
    }
    host.parse::<Ipv4Addr>().ok().map(|address| IpAddr::V4(address).to_string())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(name: &'static str, lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        caller_address(&headers, name)
    }

    #[test]
    fn an_address_in_every_form_that_proxies_write_is_read() {
        for (line, address) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("10.0.0.1, 203.0.113.7", "203.0.113.7"),
            ("10.0.0.1,203.0.113.7:80 ", "203.0.113.7"),
            ("10.0.0.1, 203.0.113.7, ,", "203.0.113.7"),
            ("\"203.0.113.7:80\"", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("2001:DB8:0:0::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:443", "2001:db8::7"),
            ("\"[2001:db8::7]:443\"", "2001:db8::7"),
            ("fe80::7%eth0", "fe80::7"),
            ("[fe80::7%25eth0]:443", "fe80::7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("[::ffff:203.0.113.7]:80", "203.0.113.7"),
            ("_hidden-1.x", "_hidden-1.x"),
        ] {
            assert_eq!(of("x-forwarded-for", &[line]).as_deref(), Some(address), "{line}");
        }
        for line in [
            "",
            ",",
            "unknown",
            "nonsense",
            "203.0.113.7, unknown",
            "203.0.113.7, unix:",
            "203.0.113.300",
            "203.0.113.7:",
            "203.0.113.7:x",
            "203.0.113.7:123456",
            "0203.0.113.7",
            "[2001:db8::7",
            "[2001:db8::7]443",
            "[203.0.113.7]",
            "2001:db8::7::1",
            "\"203.0.113.7",
            "203.0.113.7 203.0.113.8",
            "_",
            "_<script>",
            "203.0.113.7, \u{e9}",
        ] {
            assert_eq!(of("x-forwarded-for", &[line]), None, "{line}");
        }
        assert_eq!(of("x-real-ip", &["203.0.113.7"]).as_deref(), Some("203.0.113.7"));
        assert_eq!(of("x-forwarded-for", &[]), None);
    }

    #[test]
    fn several_lines_are_one_list() {
        assert_eq!(of("x-forwarded-for", &["203.0.113.1", "203.0.113.2"]).as_deref(), Some("203.0.113.2"));
        assert_eq!(of("x-forwarded-for", &["203.0.113.1, 203.0.113.2", " "]).as_deref(), Some("203.0.113.2"));
        assert_eq!(
            of("x-forwarded-for", &["203.0.113.1", "nonsense"]),
            None,
            "an entry before it is the caller's word"
        );
        assert_eq!(of("forwarded", &["for=203.0.113.1", "for=203.0.113.2"]).as_deref(), Some("203.0.113.2"));
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_says() {
        for (line, address) in [
            ("for=203.0.113.7", "203.0.113.7"),
            ("For=\"203.0.113.7:4711\"", "203.0.113.7"),
            ("for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=203.0.113.7;proto=http;by=203.0.113.43", "203.0.113.7"),
            ("proto=https ; FOR=203.0.113.7", "203.0.113.7"),
            ("for=203.0.113.1, for=203.0.113.7", "203.0.113.7"),
            ("for=\"_gazonk\"", "_gazonk"),
            ("for=_SEVKISEK:80", "_SEVKISEK"),
            ("for=\"20\\3.0.113.7\"", "203.0.113.7"),
            ("host=\"a, for=203.0.113.1;\";for=203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(of("forwarded", &[line]).as_deref(), Some(address), "{line}");
        }
        for line in [
            "for=unknown",
            "proto=https",
            "203.0.113.7",
            "for=203.0.113.7, proto=https",
            "for=203.0.113.1;for=203.0.113.7",
            "for=\"203.0.113.7",
            "for=",
        ] {
            assert_eq!(of("forwarded", &[line]), None, "{line}");
        }
    }
}
