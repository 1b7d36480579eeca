//! Settings of webhook destinations.

use clap::Args;
use ipnet::IpNet;

use crate::model::egress::{self, EgressRules};

/// Settings of webhook destinations.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Webhooks")]
pub struct Webhooks {
    /// Networks that webhooks may call although they are not public: 10.0.0.0/8 for services in your own network,
    /// 127.0.0.0/8,::1 for development. Separate several with commas. Every partner can then make this hub call any
    /// address there. Cloud metadata addresses (169.254.169.254 and similar) are never called [default: none].
    #[arg(
        long = "webhook-allow-network",
        env = "NOTIHUB_WEBHOOK_ALLOW_NETWORK",
        value_delimiter = ',',
        value_name = "NETWORK",
        value_parser = egress::parse_network
    )]
    pub webhook_allow_networks: Vec<IpNet>,
    /// Networks that webhooks may not call although they are public: your own Internet addresses, if they allow more
    /// from here than from elsewhere. This machine's own addresses are always refused. Separate several with commas.
    #[arg(
        long = "webhook-deny-network",
        env = "NOTIHUB_WEBHOOK_DENY_NETWORK",
        value_delimiter = ',',
        value_name = "NETWORK",
        value_parser = egress::parse_network
    )]
    pub webhook_deny_networks: Vec<IpNet>,
    /// Accept http:// URLs for webhooks. Anyone on the path can read such requests and answer in the partner's place.
    #[arg(long, env = "NOTIHUB_WEBHOOK_ALLOW_HTTP")]
    pub webhook_allow_http: bool,
}

impl Webhooks {
    /// These settings as rules.
    pub fn rules(&self) -> EgressRules {
        EgressRules {
            allow: self.webhook_allow_networks.clone(),
            deny: self.webhook_deny_networks.clone(),
            allow_http: self.webhook_allow_http,
        }
    }
}
