//! A hub on a database of its own for each test, with simulators of mail and Slack and a client. Two workers are two
//! hubs on one database. Tests end leases in the table: no test waits for one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use notihub::clock::Clock;
use notihub::config::Settings;
use notihub::flow::partner::{Credentials, PartnerChange};
use notihub::hub::{Hub, Parts};
use notihub::model::access::principal::{Actor, Origin};
use notihub::model::access::role::StaffRole;
use notihub::model::channel::Channel;
use notihub::model::partner::Partner;
use notihub::provider::http::{ClientSettings, ConnectionPolicy};
use notihub::provider::simulator::slack::SlackSimulator;
use notihub::provider::simulator::smtp::SmtpSimulator;
use notihub::provider::{Account, Provider, Providers, inapp, mock, slack, smtp, webhook};
use notihub::shutdown::Shutdown;
use notihub::{api, flow, http, worker};
use serde_json::Value;
use sqlx::PgPool;

use crate::support::database::{as_hub, as_superuser, fresh_database_with_weeks, store};
use crate::support::log;

pub fn emails(n: usize) -> Vec<Value> {
    (0..n).map(|n| email(&format!("no{n}@example.com"))).collect()
}

pub fn slack_posts(n: usize) -> Vec<Value> {
    (0..n).map(|n| slack_post(&format!("no {n}"))).collect()
}

#[derive(Parser)]
pub struct Flags {
    #[command(flatten)]
    pub settings: Settings,
}

/// Settings as a command line gives them.
pub fn settings(flags: &[&str]) -> Settings {
    Flags::try_parse_from(std::iter::once("test").chain(flags.iter().copied())).expect("flags").settings
}

/// One delivery's call.
pub async fn call_one(hub: &Hub, held: flow::delivery::load::HeldDelivery) -> notihub::store::delivery::Settle {
    flow::delivery::call::call(hub, vec![held]).await.pop().expect("as many as were asked")
}

pub struct App {
    pub hub: Hub,
    pub address: SocketAddr,
    pub smtp: SmtpSimulator,
    pub slack: SlackSimulator,
    /// Of the database, as superuser.
    pub url: String,
    /// Who posts in this test, unless it says otherwise.
    pub partner: Arc<Partner>,
    pub credentials: Credentials,
    /// Its access token.
    pub token: String,
    pub http: reqwest::Client,
    db: PgPool,
    pub ground: Shutdown,
}

/// Under which the tests' secrets are sealed.
pub const MASTER_KEY: [u8; 32] = [7; 32];

/// A partner of this name, and else as by default.
pub fn named(name: &str) -> PartnerChange {
    PartnerChange { name: Some(name.to_owned()), ..PartnerChange::default() }
}

pub async fn create_partner(hub: &Hub, change: PartnerChange) -> (Partner, Credentials) {
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().expect("an admin");
    flow::partner::create(hub, permit, change).await.expect("a partner")
}

pub async fn sign_in(hub: &Hub, credentials: &Credentials) -> String {
    let Credentials { client_id, client_secret } = credentials;
    flow::sign_in::sign_in(hub, client_id, client_secret, &Origin::default()).await.expect("signed in").access
}

/// When the tests' clocks start: a Friday morning in Seoul.
pub fn start_time() -> DateTime<Utc> {
    "2027-03-05T00:30:00Z".parse().expect("a time")
}

/// A client of plain HTTP: it loads no certificates, which takes longer than most tests' requests.
fn plain_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build().expect("a client")
}

impl App {
    pub async fn new() -> App {
        App::with(&[]).await
    }

    /// With flags as on the command line.
    pub async fn with(flags: &[&str]) -> App {
        App::build(flags, Vec::new(), fresh_database_with_weeks().await).await
    }

    /// With another provider in the stead of a channel's own.
    pub async fn with_provider(flags: &[&str], provider: Arc<dyn Provider>) -> App {
        App::build(flags, vec![Account::from(provider)], fresh_database_with_weeks().await).await
    }

    /// With accounts of the test's own, several of a channel perhaps, in the stead of the channel's own.
    pub async fn with_accounts(flags: &[&str], accounts: Vec<Account>) -> App {
        App::build(flags, accounts, fresh_database_with_weeks().await).await
    }

    /// On a database that is there already.
    pub async fn on(url: &str) -> App {
        App::build(&[], Vec::new(), as_hub(url)).await
    }

    async fn build(flags: &[&str], accounts: Vec<Account>, url: String) -> App {
        let _first_wins = rustls::crypto::ring::default_provider().install_default();
        log::install();
        let ground = Shutdown::new();
        let smtp = SmtpSimulator::start(0, 0, &ground).await.expect("the SMTP simulator");
        let slack = SlackSimulator::start(0, &ground).await.expect("the Slack simulator");
        let mut all = vec!["--accept-loss".to_owned()];
        all.extend([format!("--slack-destination=ops={}", slack.webhook_url("ops"))]);
        all.extend([format!("--slack-destination=dev={}", slack.webhook_url("dev"))]);
        all.extend(flags.iter().map(|f| (*f).to_owned()));
        let settings = settings(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let call_budget = settings.timing.call_budget();
        let (clock, shutdown) = (Clock::manual(start_time()), Shutdown::new());
        let common = ClientSettings::from_settings(&settings, &clock);
        let mut providers: Vec<Arc<dyn Provider>> = vec![
            Arc::new(inapp::Inapp),
            Arc::new(
                smtp::Smtp::new(smtp::SmtpSettings {
                    // Flags may name another server.
                    host: settings.email.smtp_host.clone().unwrap_or(smtp.address().ip().to_string()),
                    port: settings.email.smtp_port.unwrap_or(smtp.address().port()),
                    tls: smtp::Tls::None,
                    username: None,
                    password: None,
                    from: "Hub <hub@example.com>".into(),
                    call_budget,
                    connect_budget: settings.timing.connect_budget(),
                    data_timeout: Duration::from_secs(settings.email.smtp_data_timeout_s),
                    ca_file: None,
                    helo: Some("test.example.com".into()),
                    allow_plaintext: false,
                    throttled_pause: Duration::from_secs(300),
                    clock: clock.clone(),
                    shutdown: shutdown.clone(),
                })
                .expect("SMTP"),
            ),
            Arc::new(
                slack::Slack::new(&slack::SlackSettings {
                    destinations: settings.slack.destinations(),
                    compatible: settings.slack.compatible(),
                    connections: ConnectionPolicy::KeepAlive,
                    common: common.clone(),
                })
                .expect("Slack"),
            ),
            Arc::new(
                webhook::Webhook::new(webhook::WebhookSettings {
                    rules: settings.webhooks.rules(),
                    connections: ConnectionPolicy::KeepAlive,
                    common: common.clone(),
                })
                .expect("webhooks"),
            ),
        ];
        // A test that brings a provider for a channel gets no other provider of that channel.
        let channels = |p: &Arc<dyn Provider>| p.capabilities().into_iter().map(|c| c.channel).collect::<Vec<_>>();
        let instead: Vec<Channel> = accounts.iter().flat_map(|a| channels(&a.provider)).collect();
        let mocks = settings.channels.mock.iter().copied().filter(|c| !instead.contains(c)).collect();
        let taken = |p: &Arc<dyn Provider>| {
            channels(p).iter().any(|c| instead.contains(c) || settings.channels.mock.contains(c))
        };
        providers.retain(|p| !taken(p));
        if settings.channels.mock.iter().any(|c| !instead.contains(c)) {
            providers.push(Arc::new(mock::Mock::new(mocks)));
        }
        let hub = flow::start(Parts {
            settings,
            store: store(&url),
            providers: Providers::new(providers.into_iter().map(Account::from).chain(accounts)).expect("providers"),
            clock,
            shutdown,
            master_keys: vec![MASTER_KEY],
        })
        .await
        .expect("a hub");
        flow::retain::retain(&hub).await.expect("partitions");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        http::server::start(listener, api::router(&hub), &hub.shutdown);
        // No test meets limits or windows by accident; tests of limits set their own.
        let change = PartnerChange { rate_limit_tps: Some(1_000_000), lookup_days: Some(400), ..named("test") };
        let (partner, credentials) = create_partner(&hub, change).await;
        let token = sign_in(&hub, &credentials).await;
        App {
            hub,
            partner: Arc::new(partner),
            credentials,
            token,
            address,
            smtp,
            slack,
            db: PgPool::connect_lazy(&as_superuser(&url)).expect("a pool"),
            url: as_superuser(&url),
            http: plain_client(),
            ground,
        }
    }

    /// Another process on the same database, with the same settings and providers.
    pub async fn another_process(&self) -> Hub {
        flow::start(Parts {
            settings: self.hub.settings.clone(),
            store: store(&self.url),
            providers: self.hub.providers.clone(),
            clock: self.hub.clock.clone(),
            shutdown: Shutdown::new(),
            master_keys: vec![MASTER_KEY],
        })
        .await
        .expect("a hub")
    }

    pub fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.post_raw(path, &[("content-type", "application/json")], body.to_string().into_bytes()).await
    }

    /// With the token that this test began with: signing in for a fresh one would need the database.
    pub async fn post_as_before(&self, path: &str, body: Value) -> Answer {
        self.ask(&self.token, "POST", path, Some(body)).await
    }

    pub async fn post_raw(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = self.http.post(self.uri(path)).bearer_auth(self.fresh_token().await).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::read(request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::read(self.http.get(self.uri(path)).bearer_auth(self.fresh_token().await)).await
    }

    /// A token of this test's partner that is good now, however far the clock was moved.
    pub async fn fresh_token(&self) -> String {
        flow::sign_in::maintain_keys(&self.hub).await.expect("signing keys");
        sign_in(&self.hub, &self.credentials).await
    }

    /// Sends a request with this token; an empty token sends no Authorization header.
    pub async fn ask(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, self.uri(path));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        Answer::read(request).await
    }

    /// What machines that watch read.
    pub async fn metrics(&self) -> Answer {
        flow::sign_in::maintain_keys(&self.hub).await.expect("signing keys");
        let token = self.staff(StaffRole::Operator).await;
        self.ask(&token, "GET", "/metrics", None).await.expect(200)
    }

    /// Another partner, signed in.
    pub async fn partner(&self, change: PartnerChange) -> (Partner, Credentials, String) {
        let (partner, credentials) = create_partner(&self.hub, change).await;
        let token = sign_in(&self.hub, &credentials).await;
        (partner, credentials, token)
    }

    /// An operator's or an admin's token.
    pub async fn staff(&self, role: StaffRole) -> String {
        let actor = Actor::local_admin("test".into());
        let permit = actor.admin_permit().expect("an admin");
        let key = flow::partner::create_key(&self.hub, permit, role, "staff").await.expect("a key");
        sign_in(&self.hub, &key).await
    }

    /// A worker's pass over everything that is due.
    pub async fn work(&self) -> u64 {
        worker::deliver::deliver_due(&self.hub).await.expect("a pass")
    }

    pub fn advance(&self, seconds: i64) {
        self.hub.clock.advance(TimeDelta::seconds(seconds));
    }

    /// Works and lets time pass until nothing waits any more, an hour at most. Where all that is open waits for a time,
    /// the clock goes there at once.
    pub async fn settle_all(&self) {
        let end = self.hub.clock.now() + TimeDelta::hours(1);
        while self.hub.clock.now() < end {
            self.work().await;
            let open = "select count(*) filter (where status <> 'SCHEDULED'), min(ready_at) from deliveries \
                where status in ('SCHEDULED', 'PENDING', 'PROCESSING')";
            let (unplanned, due): (i64, Option<DateTime<Utc>>) =
                sqlx::query_as(open).fetch_one(&self.db().await).await.expect("a look");
            let Some(due) = due else { return };
            let until = (due - self.hub.clock.now()).num_seconds() + 1;
            let planned = unplanned == 0 && until <= 3600;
            self.advance(if planned { until.max(5) } else { 5 });
        }
        let open = "select format('%s %s at attempt %s, ready %s: %s', status, reason, attempt, max(ready_at), \
            count(*)) \
            from deliveries where settled_at is null group by status, reason, attempt limit 5";
        let open: Vec<String> = sqlx::query_scalar(open).fetch_all(&self.db().await).await.expect("a look");
        panic!("still not settled at {}, after an hour of the test's clock: {open:#?}", self.hub.clock.now());
    }

    /// The database as superuser: one pool for the whole test, because each new connection costs a sign-in.
    pub async fn db(&self) -> PgPool {
        self.db.clone()
    }

    /// For what no front door shows.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.db().await).await.expect("a count")
    }

    /// The message as `GET /v1/messages/{id}` shows it.
    pub async fn message(&self, id: &str) -> Value {
        self.get(&format!("/v1/messages/{id}")).await.expect(200).body
    }

    /// The invariants hold, nothing unparsed reached the database, and everything stops in order.
    pub async fn done(self) {
        let findings = flow::fsck::fsck(&self.hub.store, self.hub.clock.now(), |_| ()).await.expect("fsck");
        assert!(findings.is_empty(), "fsck: {findings:#?}");
        assert_eq!(self.hub.metrics.rejected_input.get(), 0, "the database had to refuse input");
        self.hub.shutdown.stop();
        drop(self.http);
        assert!(self.hub.shutdown.drained(Duration::from_secs(20)).await, "tasks are left behind");
        self.hub.store.close().await;
        self.db.close().await;
        self.ground.stop();
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Answer {
    pub async fn read(request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, text, body }
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Answer {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// A problem with this status and reason, told in full.
    #[track_caller]
    pub fn refused(self, status: u16, reason: &str) -> Answer {
        assert_eq!((self.status, self.body["reason"].as_str()), (status, Some(reason)), "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["requestId"].as_str(), Some(self.header("x-request-id")));
        self
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    #[track_caller]
    pub fn id(&self) -> String {
        let id = self.body["messageId"].as_str().or(self.body["id"].as_str());
        id.unwrap_or_else(|| panic!("no id in {}", self.text)).to_owned()
    }
}

/// An e-mail to one person.
pub fn email(to: &str) -> Value {
    serde_json::json!({"type": "TEST", "title": "Hello", "body": "It works.", "channels": [{"channel": "EMAIL",
        "to": to}]})
}

/// A post to the operators.
pub fn slack_post(text: &str) -> Value {
    serde_json::json!({"type": "TEST", "body": text, "channels": [{"channel": "SLACK", "to": "ops"}]})
}
