//! Calls to where partners say, kept from going inside: names are looked up here, every address of the answer is judged,
//! and only these addresses are connected to. So a name that leads elsewhere a moment later (DNS rebinding) leads nowhere.
//! `model::egress` has the law.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::model::egress::EgressRules;

use super::Pending;

/// Where names lead: the system's answer, or a test's.
pub trait Lookup: Send + Sync + 'static {
    fn lookup(&self, name: &str) -> Pending<'static, io::Result<Vec<IpAddr>>>;
}

/// As every program on this machine looks names up.
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, name: &str) -> Pending<'static, io::Result<Vec<IpAddr>>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// A name leads to an address that may not be called. Which one is not said.
#[derive(Debug)]
pub(super) struct NotAllowed;

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name leads to an address that may not be called")
    }
}

impl std::error::Error for NotAllowed {}

/// The client asks it for every name. An address in a URL is not asked about: `model::egress::parse` has judged it.
pub(super) struct Guard {
    pub rules: EgressRules,
    pub lookup: Arc<dyn Lookup>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (rules, answer) = (self.rules.clone(), self.lookup.lookup(name.as_str()));
        Box::pin(async move {
            let addresses = answer.await?;
            // One that may not be called refuses all: an honest name has no such company.
            if !addresses.iter().all(|ip| rules.allows(*ip)) {
                return Err(NotAllowed.into());
            }
            Ok(Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// The addresses of this machine: what listens on them lets in more from here than from elsewhere. Without loopback, which
/// is not public, and which developers allow.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let interfaces = match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "this machine's own addresses are not known, and so not refused to webhooks");
            return Vec::new();
        }
    };
    let ip = |address: nix::sys::socket::SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    };
    interfaces.filter_map(|interface| ip(interface.address?)).filter(|ip| !ip.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_knows_its_addresses() {
        assert!(!own_addresses().iter().any(IpAddr::is_loopback));
    }
}
