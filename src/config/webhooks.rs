//! Where partners' webhooks may go.

use clap::Args;
use ipnet::IpNet;

use crate::model::egress::{self, EgressRules};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Webhooks")]
pub struct Webhooks {
    /// Networks that partners' webhooks may lead to though they are not public: 10.0.0.0/8 for services in your own network,
    /// 127.0.0.0/8,::1 in development. Several with commas. Every partner may then have this hub call anything there. Where
    /// clouds keep their machines' credentials (169.254.169.254 and its like) is called never [default: none].
    #[arg(long = "webhook-allow-network", env = "NOTIHUB_WEBHOOK_ALLOW_NETWORK", value_delimiter = ',', value_name = "NETWORK", value_parser = egress::parse_network)]
    pub webhook_allow_networks: Vec<IpNet>,
    /// Networks that webhooks may not lead to though they are public: your own addresses on the Internet, as far as they let
    /// in more from here than from elsewhere. This machine's own addresses are refused in any case. Several with commas.
    #[arg(long = "webhook-deny-network", env = "NOTIHUB_WEBHOOK_DENY_NETWORK", value_delimiter = ',', value_name = "NETWORK", value_parser = egress::parse_network)]
    pub webhook_deny_networks: Vec<IpNet>,
    /// Take http:// for webhooks, too: whoever is on the way reads them, and may answer for the partner.
    #[arg(long, env = "NOTIHUB_WEBHOOK_ALLOW_HTTP")]
    pub webhook_allow_http: bool,
}

impl Webhooks {
    pub fn rules(&self) -> EgressRules {
        EgressRules {
            allow: self.webhook_allow_networks.clone(),
            deny: self.webhook_deny_networks.clone(),
            allow_http: self.webhook_allow_http,
        }
    }
}
