//! Webhooks: events, sent to partners' endpoints (Standard Webhooks). Each is one request of at most 15 s, signed last
//! over the exact bytes sent. The endpoint's owner sees its response. Every failure to connect has the same error code
//! and text, so that a partner cannot explore a network by registering endpoints; the log has the real one.

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

use super::guard::{GuardedResolver, NameResolver, SystemResolver, own_addresses};
use super::http::{ClientSettings, ConnectionPolicy, DecidedBy, Failure, HttpClient, HttpResponse, NOT_ALLOWED};
use super::{BoxFuture, Extra, Provider, SendRequest, WebhookRequest, tls};

/// What the webhook provider is built from.
#[derive(Clone)]
pub struct WebhookSettings {
    /// Which URLs and addresses may be called. This machine's own addresses are added to those denied.
    pub rules: EgressRules,
    pub connections: ConnectionPolicy,
    pub common: ClientSettings,
}

/// The provider of the channel WEBHOOK.
pub struct Webhook {
    rules: EgressRules,
    guard: Arc<GuardedResolver>,
    connections: ConnectionPolicy,
    common: ClientSettings,
    tls: ClientConfig,
    /// Why https cannot work on this machine, or `None` if it can.
    tls_error: Option<String>,
    clients: Mutex<ClientCache>,
}

impl Webhook {
    /// Builds the provider, with the system's name resolution.
    ///
    /// # Errors
    /// `Error::Usage` if the CA file cannot be read or holds no certificate.
    pub fn new(settings: WebhookSettings) -> Result<Webhook> {
        Webhook::with_resolver(settings, Arc::new(SystemResolver))
    }

    /// Builds the provider with another name resolver, for tests.
    ///
    /// # Errors
    /// As [`Webhook::new`].
    pub fn with_resolver(settings: WebhookSettings, resolver: Arc<dyn NameResolver>) -> Result<Webhook> {
        let mut rules = settings.rules;
        rules.deny.extend(own_addresses().into_iter().map(IpNet::from));
        let (tls, no_tls) = tls_config(settings.common.ca_file.as_deref())?;
        let call_budget = settings.common.call_budget.min(limits::WEBHOOK_BUDGET);
        Ok(Webhook {
            guard: Arc::new(GuardedResolver { rules: rules.clone(), resolver }),
            rules,
            connections: settings.connections,
            common: ClientSettings { call_budget, ..settings.common },
            tls,
            tls_error: no_tls,
            clients: Mutex::default(),
        })
    }

    /// Returns the partner's client. Builds it if it is not cached.
    fn client(&self, partner: Tsid) -> Result<Arc<HttpClient>> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(partner) {
            return Ok(client);
        }
        let client =
            Arc::new(HttpClient::with_guard(&self.common, self.connections, self.tls.clone(), self.guard.clone())?);
        clients.insert(partner, client.clone());
        Ok(client)
    }

    async fn post(&self, request: SendRequest<'_>) -> Outcome {
        let Extra::Webhook(webhook) = request.extra else {
            return rejected(ErrorClass::Content, "nothing_to_send", "there is no event to send".to_owned(), None);
        };
        // The settings, or the egress rules, may have changed since the endpoint was created.
        let Ok(url) = egress::parse_url(&webhook.url, &self.rules) else { return not_allowed(&request) };
        let client = match self.client(webhook.partner_id) {
            Ok(client) => client,
            Err(error) => return unreachable(&request, "no_client", &error.to_string()),
        };
        match client.post_json(&url.into_url(), webhook.body.clone(), headers(webhook), DecidedBy::Status).await {
            Ok(answer) => outcome_of(&answer),
            Err(Failure::Definite { code: NOT_ALLOWED, .. }) => not_allowed(&request),
            Err(Failure::Definite { code, detail }) => unreachable(&request, code, &detail),
            Err(Failure::Unknown { code, detail }) => {
                let (delivery, endpoint) = (request.key, request.to);
                tracing::debug!(%delivery, endpoint, code, detail, "the endpoint did not answer the webhook");
                let detail = "the endpoint was reached, but did not answer completely in time".to_owned();
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

    fn send<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(self.post(request))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async {
            if let Some(reason) = &self.tls_error {
                return Err(reason.clone());
            }
            let schemes = if self.rules.allow_http { "https and http" } else { "https" };
            let allowed: Vec<String> = self.rules.allow.iter().map(ToString::to_string).collect();
            let others = if allowed.is_empty() { String::new() } else { format!(" and {}", allowed.join(", ")) };
            Ok(format!("webhooks go to public addresses{others}, over {schemes}"))
        })
    }
}

/// Builds the TLS configuration of all partners' clients, once, because loading the system's certificates takes long.
/// If the system has none, returns a configuration that trusts no server, and the reason.
fn tls_config(ca_file: Option<&Path>) -> Result<(ClientConfig, Option<String>)> {
    let (mut tls, tls_error) = match tls::client_config(&tls::ca_certificates(ca_file)?) {
        Ok(config) => (config, None),
        // Without certificates a developer can still send webhooks over http.
        Err(error) => {
            let reason =
                format!("https does not work: {error}; install the package ca-certificates, or name a CA file");
            tracing::warn!(why = reason, "webhooks cannot be sent over https");
            let no_certificates = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
            (no_certificates.with_no_client_auth(), Some(reason))
        }
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((tls, tls_error))
}

/// HTTP clients by partner. Each partner has its own client and so its own connection pool: connections are reused, but
/// never by two partners. Without reuse, one busy endpoint would cost a handshake for each event and exhaust this
/// machine's ports.
#[derive(Default)]
struct ClientCache {
    by_partner: HashMap<Tsid, (u64, Arc<HttpClient>)>,
    uses: u64,
}

impl ClientCache {
    fn get(&mut self, partner: Tsid) -> Option<Arc<HttpClient>> {
        self.uses += 1;
        let (used, client) = self.by_partner.get_mut(&partner)?;
        *used = self.uses;
        Some(client.clone())
    }

    /// Adds a client. If there are too many, drops the one not used for longest; calls under way keep theirs.
    fn insert(&mut self, partner: Tsid, client: Arc<HttpClient>) {
        if self.by_partner.len() >= limits::WEBHOOK_CLIENTS
            && let Some(oldest) = self.by_partner.iter().min_by_key(|(_, (used, _))| *used).map(|(partner, _)| *partner)
        {
            self.by_partner.remove(&oldest);
        }
        self.by_partner.insert(partner, (self.uses, client));
    }
}

/// Returns the owner's headers, overridden by the signature's headers.
fn headers(webhook: &WebhookRequest) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let previous_secret = webhook.former_secret.as_deref();
    let owner_headers = webhook.headers.iter().filter(|(name, _)| !egress::is_reserved_header(name));
    let owner_headers = owner_headers.map(|(name, value)| (name.as_str(), value.clone()));
    let signature_headers =
        signature::headers(&webhook.secret, previous_secret, &webhook.event_id, webhook.timestamp, &webhook.body);
    for (name, value) in owner_headers.chain(signature_headers) {
        // Invalid headers were refused when the endpoint was created.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
            headers.insert(name, value);
        }
    }
    headers
}

fn outcome_of(answer: &HttpResponse) -> Outcome {
    let HttpResponse { status, body, retry_after } = answer;
    let class = match status {
        200..=299 => return Outcome::Accepted { provider_ref: Some(format!("HTTP {status}")) },
        410 => ErrorClass::EndpointGone,
        429 => ErrorClass::Throttled,
        _ => ErrorClass::EndpointRefused,
    };
    let answer_text = body_excerpt(body);
    let detail = match status {
        300..=399 => "the endpoint redirects, and redirects are not followed".to_owned(),
        _ if answer_text.is_empty() => format!("the endpoint answered {status} and sent no text"),
        _ => answer_text,
    };
    rejected(class, &format!("http_{status}"), detail, *retry_after)
}

/// Returns the beginning of a response body as text, without control characters.
fn body_excerpt(body: &[u8]) -> String {
    let beginning = &body[..body.len().min(limits::WEBHOOK_ANSWER_BYTES)];
    let mut text: String =
        String::from_utf8_lossy(beginning).chars().filter(|c| !c.is_control() || *c == '\n').collect();
    text.truncate(text.floor_char_boundary(limits::WEBHOOK_ANSWER_BYTES));
    text.trim().to_owned()
}

fn rejected(class: ErrorClass, code: &str, detail: String, retry_after: Option<Duration>) -> Outcome {
    Outcome::Rejected { class, code: code.to_owned(), detail, retry_after }
}

fn not_allowed(request: &SendRequest<'_>) -> Outcome {
    tracing::warn!(
        delivery = %request.key,
        endpoint = request.to,
        "the webhook was not sent: its URL leads to an address that may not be called"
    );
    let detail = "the endpoint's URL leads to an address that is not allowed".to_owned();
    rejected(ErrorClass::EndpointForbidden, ErrorClass::EndpointForbidden.as_str(), detail, None)
}

/// Returns the one outcome of every failure to connect. The real failure is only logged, for operators.
fn unreachable(request: &SendRequest<'_>, code: &str, detail: &str) -> Outcome {
    let (delivery, endpoint) = (request.key, request.to);
    tracing::debug!(%delivery, endpoint, code, detail, "the webhook was not sent: the endpoint cannot be reached");
    let shown_detail = "the endpoint could not be reached: check its name, its port and its certificate".to_owned();
    rejected(ErrorClass::Unreachable, "endpoint_unreachable", shown_detail, None)
}

#[cfg(test)]
mod tests {
    use super::super::simulator::testing::{BUDGET, rustls_provider};
    use super::*;

    #[test]
    fn least_recently_used_clients_are_dropped() {
        rustls_provider();
        let rules = EgressRules::default();
        let webhook = Webhook::new(WebhookSettings {
            rules,
            connections: ConnectionPolicy::KeepAlive,
            common: ClientSettings::with_budget(BUDGET),
        })
        .unwrap();
        let busy = webhook.client(Tsid(0)).unwrap();
        for partner in 1..1500 {
            webhook.client(Tsid(partner)).unwrap();
            assert!(Arc::ptr_eq(&busy, &webhook.client(Tsid(0)).unwrap()), "used all the time");
        }
        let clients = webhook.clients.lock().unwrap();
        assert_eq!(clients.by_partner.len(), limits::WEBHOOK_CLIENTS);
        assert!(!clients.by_partner.contains_key(&Tsid(1)) && clients.by_partner.contains_key(&Tsid(1499)));
    }

    #[test]
    fn body_excerpt_is_plain_text() {
        assert_eq!(body_excerpt(b" no\x00\x1b[2J\r\nway\xff "), "no[2J\nway\u{fffd}");
        assert_eq!(body_excerpt("é".repeat(1000).as_bytes()).len(), limits::WEBHOOK_ANSWER_BYTES);
        // Bytes that are not UTF-8 become three bytes each.
        assert!(body_excerpt(&[0xff; 5000]).len() <= limits::WEBHOOK_ANSWER_BYTES);
    }
}
