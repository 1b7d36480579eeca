//! Webhooks: events, sent to where partners want them. Signed last, over the exact bytes sent; one request, which has 15 s
//! in all; what the endpoint answers is for its owner to see, and what is in the way is told in one word for everything, so
//! that nobody learns about a network by having us knock.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustls::{ClientConfig, RootCertStore};

use crate::error::Result;
use crate::id::Tsid;
use crate::limits;
use crate::model::capability::Capability;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::egress::{self, EgressRules};
use crate::model::pace::LimitScope;
use crate::model::retry::ErrorClass;
use crate::model::signature;

use super::guard::{Guard, Lookup, SystemLookup, own_addresses};
use super::http::{Answer, Common, Connections, DecidedBy, Failure, Http, NOT_ALLOWED};
use super::{Extra, Pending, Provider, SendRequest, WebhookRequest, tls};

#[derive(Clone)]
pub struct WebhookSettings {
    pub rules: EgressRules,
    pub connections: Connections,
    pub common: Common,
}

pub struct Webhook {
    rules: EgressRules,
    guard: Arc<Guard>,
    connections: Connections,
    common: Common,
    tls: ClientConfig,
    /// Why no https will work, if so.
    no_tls: Option<String>,
    clients: Mutex<Clients>,
}

impl Webhook {
    pub fn new(settings: WebhookSettings) -> Result<Webhook> {
        Webhook::with_lookup(settings, Arc::new(SystemLookup))
    }

    /// With another way to look names up than the system's.
    pub fn with_lookup(settings: WebhookSettings, lookup: Arc<dyn Lookup>) -> Result<Webhook> {
        let mut rules = settings.rules;
        rules.deny.extend(own_addresses().into_iter().map(IpNet::from));
        let (tls, no_tls) = trusted(settings.common.ca_file.as_deref())?;
        let call_budget = settings.common.call_budget.min(limits::WEBHOOK_BUDGET);
        Ok(Webhook {
            guard: Arc::new(Guard { rules: rules.clone(), lookup }),
            rules,
            connections: settings.connections,
            common: Common { call_budget, ..settings.common },
            tls,
            no_tls,
            clients: Mutex::default(),
        })
    }

    /// The partner's client, made when there is none.
    fn client(&self, partner: Tsid) -> Result<Arc<Http>> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(partner) {
            return Ok(client);
        }
        let client = Arc::new(Http::guarded(&self.common, self.connections, self.tls.clone(), self.guard.clone())?);
        clients.keep(partner, client.clone());
        Ok(client)
    }

    async fn post(&self, letter: SendRequest<'_>) -> Outcome {
        let Extra::Webhook(request) = letter.extra else {
            return rejected(ErrorClass::Content, "nothing_to_send", "there is no event to send".to_owned(), None);
        };
        // The settings, or the law, may have changed since the endpoint was made.
        let Ok(url) = egress::parse_url(&request.url, &self.rules) else { return not_allowed(&letter) };
        let client = match self.client(request.partner_id) {
            Ok(client) => client,
            Err(error) => return unreachable(&letter, "no_client", &error.to_string()),
        };
        match client.post_json(&url.into_url(), request.body.clone(), headers(request), DecidedBy::Status).await {
            Ok(answer) => verdict(&answer),
            Err(Failure::Definite { code: NOT_ALLOWED, .. }) => not_allowed(&letter),
            Err(Failure::Definite { code, detail }) => unreachable(&letter, code, &detail),
            Err(Failure::Unknown { code, detail }) => {
                tracing::debug!(delivery = %letter.key, endpoint = letter.to, code, detail, "no answer to a webhook");
                let detail = "the endpoint was reached, but there was no whole answer in time".to_owned();
                Outcome::Unknown { code, detail }
            }
        }
    }
}

impl Provider for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(Channel::Webhook)]
    }

    fn limited_by(&self) -> LimitScope {
        LimitScope::Endpoint
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        Box::pin(self.post(letter))
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(async {
            if let Some(why) = &self.no_tls {
                return Err(why.clone());
            }
            let schemes = if self.rules.allow_http { "https and http" } else { "https" };
            let allowed: Vec<String> = self.rules.allow.iter().map(ToString::to_string).collect();
            let and = if allowed.is_empty() { String::new() } else { format!(" and {}", allowed.join(", ")) };
            Ok(format!("goes to public addresses{and}, over {schemes}"))
        })
    }
}

/// What every partner's client trusts. Reading the system's certificates takes long, so it is done once.
fn trusted(ca_file: Option<&Path>) -> Result<(ClientConfig, Option<String>)> {
    let (mut tls, without) = match tls::config(&tls::roots(ca_file)?) {
        Ok(config) => (config, None),
        // Whoever has no certificates may still develop without TLS.
        Err(error) => {
            let why = format!("no https: {error}; install the package ca-certificates, or name a CA file");
            tracing::warn!(why, "webhooks cannot be sent over https");
            let nobody = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
            (nobody.with_no_client_auth(), Some(why))
        }
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((tls, without))
}

/// Connections are kept and used again, but never for two partners: each has a client, and so a pool, of its own. Without
/// any, one busy endpoint would cost a handshake for each event and use up this machine's ports.
#[derive(Default)]
struct Clients {
    kept: HashMap<Tsid, (u64, Arc<Http>)>,
    used: u64,
}

impl Clients {
    fn get(&mut self, partner: Tsid) -> Option<Arc<Http>> {
        self.used += 1;
        let (used, client) = self.kept.get_mut(&partner)?;
        *used = self.used;
        Some(client.clone())
    }

    /// In the stead of the one not used for longest, when there are too many. Calls under way keep theirs.
    fn keep(&mut self, partner: Tsid, client: Arc<Http>) {
        if self.kept.len() >= limits::WEBHOOK_CLIENTS
            && let Some(oldest) = self.kept.iter().min_by_key(|(_, (used, _))| *used).map(|(partner, _)| *partner)
        {
            self.kept.remove(&oldest);
        }
        self.kept.insert(partner, (self.used, client));
    }
}

/// The owner's headers, and then ours, which nothing overrides.
fn headers(request: &WebhookRequest) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let former = request.former_secret.as_deref();
    let own = request.headers.iter().filter(|(name, _)| !egress::is_reserved_header(name));
    let own = own.map(|(name, value)| (name.as_str(), value.clone()));
    let ours = signature::headers(&request.secret, former, &request.event_id, request.timestamp, &request.body);
    for (name, value) in own.chain(ours) {
        // What cannot be a header was refused when the endpoint was made.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
    headers
}

fn verdict(answer: &Answer) -> Outcome {
    let Answer { status, body, retry_after } = answer;
    let class = match status {
        200..=299 => return Outcome::Accepted { provider_ref: Some(format!("HTTP {status}")) },
        410 => ErrorClass::EndpointGone,
        429 => ErrorClass::Throttled,
        _ => ErrorClass::EndpointRefused,
    };
    let said = excerpt(body);
    let detail = match status {
        300..=399 => "the endpoint redirects, and redirects are not followed".to_owned(),
        _ if said.is_empty() => format!("the endpoint answered {status}, and nothing more"),
        _ => said,
    };
    rejected(class, &format!("http_{status}"), detail, *retry_after)
}

/// The beginning of an answer as text, without control characters.
fn excerpt(body: &[u8]) -> String {
    let beginning = &body[..body.len().min(limits::WEBHOOK_ANSWER_BYTES)];
    let mut text: String =
        String::from_utf8_lossy(beginning).chars().filter(|c| !c.is_control() || *c == '\n').collect();
    text.truncate(text.floor_char_boundary(limits::WEBHOOK_ANSWER_BYTES));
    text.trim().to_owned()
}

fn rejected(class: ErrorClass, code: &str, detail: String, retry_after: Option<Duration>) -> Outcome {
    Outcome::Rejected { class, code: code.to_owned(), detail, retry_after }
}

fn not_allowed(letter: &SendRequest<'_>) -> Outcome {
    tracing::warn!(delivery = %letter.key, endpoint = letter.to, "a webhook leads to an address that may not be called");
    let detail = "the endpoint's URL leads to an address that is not allowed".to_owned();
    rejected(ErrorClass::EndpointForbidden, ErrorClass::EndpointForbidden.as_str(), detail, None)
}

/// The one word for all that is in the way before a connection stands. What it was is in the log, for operators.
fn unreachable(letter: &SendRequest<'_>, code: &str, detail: &str) -> Outcome {
    tracing::debug!(delivery = %letter.key, endpoint = letter.to, code, detail, "an endpoint is not reached");
    let told = "the endpoint could not be reached: check its name, its port and its certificate".to_owned();
    rejected(ErrorClass::Unreachable, "endpoint_unreachable", told, None)
}

#[cfg(test)]
mod tests {
    use super::super::simulator::testing::{BUDGET, rustls_provider};
    use super::*;

    #[test]
    fn clients_are_kept_for_those_who_use_them() {
        rustls_provider();
        let rules = EgressRules::default();
        let webhook =
            Webhook::new(WebhookSettings { rules, connections: Connections::Kept, common: Common::within(BUDGET) })
                .unwrap();
        let busy = webhook.client(Tsid(0)).unwrap();
        for partner in 1..1500 {
            webhook.client(Tsid(partner)).unwrap();
            assert!(Arc::ptr_eq(&busy, &webhook.client(Tsid(0)).unwrap()), "used all the time");
        }
        let clients = webhook.clients.lock().unwrap();
        assert_eq!(clients.kept.len(), limits::WEBHOOK_CLIENTS);
        assert!(!clients.kept.contains_key(&Tsid(1)) && clients.kept.contains_key(&Tsid(1499)));
    }

    #[test]
    fn of_an_answer_the_beginning_is_kept_as_plain_text() {
        assert_eq!(excerpt(b" no\x00\x1b[2J\r\nway\xff "), "no[2J\nway\u{fffd}");
        assert_eq!(excerpt("é".repeat(1000).as_bytes()).len(), limits::WEBHOOK_ANSWER_BYTES);
        // What is not UTF-8 grows: each byte becomes three.
        assert!(excerpt(&[0xff; 5000]).len() <= limits::WEBHOOK_ANSWER_BYTES);
    }
}
