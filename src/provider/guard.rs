//! Keeps calls to partners' URLs out of the internal network. Names are resolved here, every address of the answer is
//! checked, and the client connects only to these addresses; so a name that resolves to another address a moment later
//! (DNS rebinding) gains nothing. `model::egress` has the rules.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::model::egress::EgressRules;

use super::BoxFuture;

/// Resolves host names: by the system, or by a test's table.
pub trait NameResolver: Send + Sync + 'static {
    /// Returns all addresses of a name.
    ///
    /// The future returns an `io::Error` if the name cannot be resolved.
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Resolves names as the operating system does.
pub struct SystemResolver;

impl NameResolver for SystemResolver {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// A name resolved to an address that may not be called. The text does not show which, because the partner reads it.
#[derive(Debug)]
pub(super) struct AddressNotAllowed;

impl fmt::Display for AddressNotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name resolves to an address that may not be called")
    }
}

impl std::error::Error for AddressNotAllowed {}

/// The resolver of HTTP clients for partners' URLs. The client does not resolve an address that stands in a URL itself:
/// `model::egress::parse` has checked that.
pub(super) struct GuardedResolver {
    pub rules: EgressRules,
    pub resolver: Arc<dyn NameResolver>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (rules, answer) = (self.rules.clone(), self.resolver.resolve(name.as_str()));
        Box::pin(async move {
            let addresses = answer.await?;
            // One forbidden address refuses them all: an honest name has no internal address beside public ones.
            if !addresses.iter().all(|ip| rules.allows(*ip)) {
                return Err(AddressNotAllowed.into());
            }
            Ok(Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// Returns the addresses of this machine's interfaces, without loopback. Calls to them are forbidden, because services
/// on them may trust connections from the machine itself. Loopback is forbidden anyway, unless a developer allows it.
pub(super) fn own_addresses() -> Vec<IpAddr> {
    let interfaces = match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "the addresses of this machine cannot be listed; webhooks to them are not refused");
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
    fn own_addresses_exclude_loopback() {
        assert!(!own_addresses().iter().any(IpAddr::is_loopback));
    }
}
