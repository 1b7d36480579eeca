//! Endpoints of partners: made, changed, rotated, paused, tested and deleted through the front door; the webhooks that
//! they got, and how the API reports them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use notihub::flow;
use notihub::flow::partner::PartnerChange;
use notihub::model::access::role::StaffRole;
use notihub::model::capability::Capability;
use notihub::model::channel::Channel;
use notihub::model::delivery::Outcome;
use notihub::model::retry::ErrorClass;
use notihub::provider::{BoxFuture, Extra, Provider, SendRequest};
use serde_json::{Value, json};

use crate::support::app::{App, email, named};
use crate::support::database::fresh_database;
use crate::support::process::{Folder, Notihub};

const URL: &str = "https://hooks.example.com/notihub";

/// Stands for every endpoint: accepts, or refuses as the test sets, and keeps its requests. The signatures of requests
/// and their allowed destinations belong to the webhook provider, and are tested there.
#[derive(Default)]
struct Endpoints {
    refuses: Mutex<Option<(ErrorClass, &'static str, String)>>,
    got: Mutex<Vec<(String, Value)>>,
}

impl Provider for Endpoints {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(Channel::Webhook)]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let Extra::Webhook(request) = letter.extra else { panic!("no webhook") };
            let body = serde_json::from_slice(&request.body).unwrap();
            self.got.lock().unwrap().push((request.url.clone(), body));
            match self.refuses.lock().unwrap().clone() {
                None => Outcome::Accepted { provider_ref: Some("HTTP 204".into()) },
                Some((class, code, detail)) => {
                    Outcome::Rejected { class, code: code.into(), detail, retry_after: Some(Duration::ZERO) }
                }
            }
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Ok("it answers as told".to_owned()) })
    }
}

impl Endpoints {
    fn refuse(&self, with: Option<(ErrorClass, &'static str, &str)>) {
        *self.refuses.lock().unwrap() = with.map(|(class, code, detail)| (class, code, detail.to_owned()));
    }

    fn took(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.got.lock().unwrap())
    }
}

async fn with_endpoints() -> (App, Arc<Endpoints>) {
    let endpoints = Arc::new(Endpoints::default());
    (App::with_provider(&[], endpoints.clone()).await, endpoints)
}

fn id(answer: &Value) -> String {
    answer["endpointId"].as_str().unwrap_or_else(|| panic!("no endpoint in {answer}")).to_owned()
}

async fn make(app: &App, body: Value) -> Value {
    app.post("/v1/webhooks", body).await.expect(201).body
}

async fn patch(app: &App, id: &str, body: Value) -> Value {
    let token = app.fresh_token().await;
    app.ask(&token, "PATCH", &format!("/v1/webhooks/{id}"), Some(body)).await.expect(200).body
}

async fn items(app: &App, path: &str) -> Vec<Value> {
    app.get(path).await.expect(200).body["items"].as_array().unwrap().clone()
}

/// S0-44, S0-45: an endpoint is made with its secret, looked at without it, changed field by field, and deleted; what
/// is left out stays and null empties.
#[tokio::test]
async fn endpoint_is_created_changed_and_deleted() {
    let app = App::new().await;
    let made = app.post("/v1/webhooks", json!({"url": URL})).await.expect(201);
    let endpoint = id(&made.body);
    let path = format!("/v1/webhooks/{endpoint}");
    assert_eq!(made.header("location"), path);
    let secret = made.body["secret"].as_str().unwrap();
    assert!(notihub::model::signature::decode_secret(secret).is_some_and(|key| key.len() == 32), "{secret}");
    let at = "2027-03-05T00:30:00.000000Z";
    let bare = json!({"code": "0000", "endpointId": endpoint, "url": URL, "description": null, "events": null,
        "status": "ACTIVE", "disabledReason": null, "ordered": false, "includeContent": false, "contactEmail": null,
        "headers": [], "formerSecretGoodUntil": null, "failingSince": null, "lastSuccessAt": null,
            "lastFailureAt": null,
        "createdAt": at, "updatedAt": at});
    assert_eq!(app.get(&path).await.expect(200).body, bare);

    app.advance(1);
    let all = json!({"url": "https://other.example.com:8443/x?y=z", "description": "orders", "ordered": true,
        "events": ["message.completed", "delivery.failed", "delivery.failed"], "contactEmail": "ops@example.com",
        "headers": {"X-Api-Key": "CANARY value", "Authorization": "Bearer CANARY"}});
    let changed = patch(&app, &endpoint, all).await;
    let mut wanted = bare.clone();
    for (name, value) in [
        ("url", json!("https://other.example.com:8443/x?y=z")),
        ("description", json!("orders")),
        ("ordered", json!(true)),
        ("events", json!(["delivery.failed", "message.completed"])),
        ("contactEmail", json!("ops@example.com")),
        ("headers", json!(["authorization", "x-api-key"])),
        ("updatedAt", json!("2027-03-05T00:30:01.000000Z")),
    ] {
        wanted[name] = value;
    }
    assert_eq!(changed, wanted);
    app.advance(1);
    let nothing = json!({"url": null, "ordered": null, "status": null, "includeContent": null});
    assert_eq!(patch(&app, &endpoint, nothing).await, wanted, "nothing is changed, not even when it was changed last");
    let emptied = json!({"events": null, "description": null, "contactEmail": null, "headers": null});
    let emptied = patch(&app, &endpoint, emptied).await;
    for name in ["events", "description", "contactEmail"] {
        assert_eq!(emptied[name], Value::Null, "{name}");
    }
    assert_eq!((&emptied["headers"], &emptied["ordered"]), (&json!([]), &json!(true)));

    let second = id(&make(&app, json!({"url": URL})).await);
    let listed: Vec<String> = items(&app, "/v1/webhooks").await.iter().map(id).collect();
    assert_eq!(listed, [second.clone(), endpoint.clone()], "newest first");
    let page = app.get("/v1/webhooks?limit=1").await.expect(200).body;
    let next = format!("/v1/webhooks?limit=1&cursor={}", page["nextCursor"].as_str().unwrap());
    let page = app.get(&next).await.expect(200).body;
    assert_eq!((id(&page["items"][0]), &page["nextCursor"]), (endpoint.clone(), &Value::Null));
    assert_eq!(items(&app, "/v1/webhooks?since=2027-03-05T00:30:01Z").await.len(), 1);

    let token = app.fresh_token().await;
    for status in [204, 404] {
        app.ask(&token, "DELETE", &path, None).await.expect(status);
    }
    app.get(&path).await.refused(404, "not_found");
    app.ask(&token, "PATCH", &path, Some(json!({}))).await.refused(404, "not_found");
    assert_eq!(items(&app, "/v1/webhooks").await.len(), 1);
    app.done().await;
}

/// S0-44: all faults of an endpoint are in one answer, in words of the contract, and nothing is changed.
#[tokio::test]
async fn endpoint_with_faults_is_refused_with_all_of_them() {
    let app = App::new().await;
    let endpoint = id(&make(&app, json!({"url": URL})).await);
    let before = app.get(&format!("/v1/webhooks/{endpoint}")).await.expect(200).body;
    let many: serde_json::Map<String, Value> = (0..11).map(|n| (format!("x-{n}"), json!("v"))).collect();
    let with = |name: &str, value: Value| json!({"url": URL, name: value});
    for (body, reason, at) in [
        (json!({"url": ""}), "empty", "/url"),
        (json!({"url": 1}), "type_mismatch", "/url"),
        (json!({"url": "ftp://example.com/"}), "url_scheme", "/url"),
        (json!({"url": "http://example.com/"}), "url_scheme", "/url"),
        (json!({"url": "https://user@example.com/"}), "url_userinfo", "/url"),
        (json!({"url": "https://127.0.0.1/"}), "url_host_not_allowed", "/url"),
        (json!({"url": "https://[::ffff:169.254.169.254]/"}), "url_host_not_allowed", "/url"),
        (json!({"url": "hooks"}), "url_invalid", "/url"),
        (json!({"url": format!("https://example.com/{}", "x".repeat(2048))}), "content_too_long", "/url"),
        (with("events", json!([])), "empty", "/events"),
        (with("events", json!("all")), "type_mismatch", "/events"),
        (with("events", json!(["delivery.sent", "delivery.lost"])), "enum", "/events/1"),
        (with("events", json!(["endpoint.test"])), "enum", "/events/0"),
        (with("events", json!([null])), "type_mismatch", "/events/0"),
        (with("description", json!("x".repeat(251))), "content_too_long", "/description"),
        (with("description", json!("a\nb")), "control_character", "/description"),
        (with("ordered", json!("yes")), "type_mismatch", "/ordered"),
        (with("includeContent", json!(true)), "not_allowed", "/includeContent"),
        (with("contactEmail", json!("ops")), "recipient_invalid", "/contactEmail"),
        (with("contactEmail", json!("Ops <ops@example.com>")), "recipient_invalid", "/contactEmail"),
        (with("headers", json!([])), "type_mismatch", "/headers"),
        (with("headers", json!({"x": 1})), "type_mismatch", "/headers/x"),
        (with("headers", json!({"x": "a\r\nhost: b"})), "header_invalid", "/headers/x"),
        (with("headers", json!({"x y": "a"})), "header_invalid", "/headers/x y"),
        (with("headers", json!({"Host": "a"})), "header_reserved", "/headers/Host"),
        (with("headers", json!({"Webhook-Id": "a"})), "header_reserved", "/headers/Webhook-Id"),
        (with("headers", json!({"X-Signature-Next": "a"})), "header_reserved", "/headers/X-Signature-Next"),
        (with("headers", json!({"A": "1", "a": "2"})), "duplicate_key", "/headers/a"),
        (with("headers", Value::Object(many)), "too_many_items", "/headers"),
        (with("secret", json!("mine")), "unknown_field", "/secret"),
        (with("endpointId", json!(endpoint)), "unknown_field", "/endpointId"),
    ] {
        let new = app.post("/v1/webhooks", body.clone()).await.refused(422, reason);
        let token = app.fresh_token().await;
        let path = format!("/v1/webhooks/{endpoint}");
        let change = app.ask(&token, "PATCH", &path, Some(body.clone())).await.refused(422, reason);
        for answer in [new, change] {
            assert_eq!(answer.body["errors"][0]["pointer"], at, "{body}: {}", answer.text);
        }
    }
    app.post("/v1/webhooks", json!({})).await.refused(422, "required");
    app.post("/v1/webhooks", json!({"url": URL, "status": "PAUSED"})).await.refused(422, "unknown_field");
    let token = app.fresh_token().await;
    for status in ["DISABLED", "DELETED", "paused"] {
        let body = Some(json!({"status": status}));
        app.ask(&token, "PATCH", &format!("/v1/webhooks/{endpoint}"), body).await.refused(422, "enum");
    }
    let everything = json!({"url": "x", "events": ["x"], "ordered": 1, "headers": {"host": "x"}, "who": 1});
    let report = app.post("/v1/webhooks", everything).await.expect(422).body;
    assert_eq!(report["errors"].as_array().unwrap().len(), 5, "{report}");
    let allowed = report["errors"].as_array().unwrap().iter().find(|fault| fault["pointer"] == "/events/0").unwrap();
    assert!(allowed["detail"].as_str().unwrap().contains("delivery.undetermined"), "names what there is: {allowed}");
    for (body, reason) in [
        (json!({"overlapSeconds": -1}), "min"),
        (json!({"overlapSeconds": 604_801}), "max"),
        (json!({"overlapSeconds": "1"}), "type_mismatch"),
        (json!({"overlap": 1}), "unknown_field"),
    ] {
        app.post(&format!("/v1/webhooks/{endpoint}/rotate"), body).await.refused(422, reason);
    }
    app.post_raw(&format!("/v1/webhooks/{endpoint}/rotate"), &[], b"{}".to_vec())
        .await
        .refused(415, "content_type_missing");
    for query in ["status=LOST", "event=x", "limit=0", "since=now", "cursor=x", "what=1"] {
        assert_eq!(app.get(&format!("/v1/webhooks/{endpoint}/deliveries?{query}")).await.status, 400, "{query}");
    }
    assert_eq!(app.get(&format!("/v1/webhooks/{endpoint}")).await.expect(200).body, before);
    assert_eq!(items(&app, "/v1/webhooks").await.len(), 1);
    app.done().await;
}

/// S0-45: a secret is shown when it is made and never again; a rotation keeps the former one for its overlap; values of
/// headers are shown nowhere. The audit log has each change and its actor, and no secret or header value.
#[tokio::test]
async fn endpoint_secret_is_shown_once_and_changes_are_audited() {
    let app = App::new().await;
    let body = json!({"url": "https://hooks.example.com/CANARY-path", "headers": {"authorization": "Bearer CANARY"},
        "contactEmail": "CANARY@example.com", "description": "CANARY"});
    let made = make(&app, body).await;
    let endpoint = id(&made);
    let path = format!("/v1/webhooks/{endpoint}");
    let rotate = format!("{path}/rotate");
    let first = app.post_raw(&rotate, &[], Vec::new()).await.expect(200).body;
    assert_eq!(first["formerSecretGoodUntil"], "2027-03-06T00:30:00.000000Z", "a day when nothing is said");
    let second = app.post(&rotate, json!({"overlapSeconds": 60})).await.expect(200).body;
    assert_eq!(second["formerSecretGoodUntil"], "2027-03-05T00:31:00.000000Z");
    let loaded = async || {
        let db = app.hub.store.api();
        notihub::store::endpoint::load(db, &app.hub.keyring, &[endpoint.parse().unwrap()]).await.unwrap().remove(0)
    };
    let kept = loaded().await;
    assert_eq!(kept.secret, second["secret"].as_str().unwrap());
    let now = app.hub.clock.now();
    assert_eq!(kept.valid_previous_secret(now), first["secret"].as_str(), "the one before, and none before that");
    app.advance(61);
    assert_eq!(kept.valid_previous_secret(app.hub.clock.now()), None);
    assert_eq!(app.get(&path).await.expect(200).body["formerSecretGoodUntil"], Value::Null);
    let third = app.post(&rotate, json!({"overlapSeconds": 0})).await.expect(200).body;
    assert_eq!((third["formerSecretGoodUntil"].clone(), loaded().await.previous_secret), (Value::Null, None));
    patch(&app, &endpoint, json!({"status": "PAUSED"})).await;
    patch(&app, &endpoint, json!({"headers": {"x-key": "CANARY too"}})).await;

    let (operator, admin) = (app.staff(StaffRole::Operator).await, app.staff(StaffRole::Admin).await);
    let looked = app.ask(&operator, "GET", &path, None).await.expect(200);
    assert_eq!(looked.body["partnerId"], json!(app.partner.partner_id.to_string()));
    // An admin acts for a partner, and says for which.
    app.ask(&admin, "POST", "/v1/webhooks", Some(json!({"url": URL}))).await.refused(400, "query_required");
    let theirs = format!("/v1/webhooks?partnerId={}", app.partner.partner_id);
    let by_admin = app.ask(&admin, "POST", &theirs, Some(json!({"url": URL}))).await.expect(201).body;
    app.ask(&admin, "DELETE", &format!("/v1/webhooks/{}", id(&by_admin)), None).await.expect(204);
    app.ask(&operator, "POST", &theirs, Some(json!({"url": URL}))).await.refused(403, "forbidden");
    let nobodys = format!("/v1/webhooks?partnerId={}", app.hub.next_id());
    app.ask(&admin, "POST", &nobodys, Some(json!({"url": URL}))).await.refused(404, "partner_unknown");

    let log = format!("/v1/partners/{}/audit", app.partner.partner_id);
    let log = app.ask(&admin, "GET", &log, None).await.expect(200);
    let deeds: Vec<(&str, &str, &str)> = log.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["action"].as_str().unwrap().starts_with("endpoint."))
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap();
            (text("action"), text("object"), text("role"))
        })
        .collect();
    let (own, other) = (endpoint.as_str(), id(&by_admin));
    assert_eq!(
        deeds,
        [
            ("endpoint.delete", other.as_str(), "ADMIN"),
            ("endpoint.create", &other, "ADMIN"),
            ("endpoint.update", own, "PARTNER"),
            ("endpoint.update", own, "PARTNER"),
            ("endpoint.rotate", own, "PARTNER"),
            ("endpoint.rotate", own, "PARTNER"),
            ("endpoint.rotate", own, "PARTNER"),
            ("endpoint.create", own, "PARTNER"),
        ]
    );
    let paused = &log.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["before"]["status"] == "ACTIVE" && e["after"]["status"] == "PAUSED")
        .unwrap();
    assert_eq!((&paused["after"]["status"], &paused["actor"]), (&json!("PAUSED"), &json!(app.credentials.client_id)));
    assert_eq!(paused["after"]["origin"], "https://hooks.example.com");
    let report = [log.text, looked.text, app.get("/v1/webhooks").await.text].concat();
    for secret in [&made, &first, &second, &third].map(|shown| shown["secret"].as_str().unwrap()) {
        assert!(!report.contains(secret), "a secret is shown twice");
    }
    assert!(!report.contains("Bearer CANARY") && !report.contains("CANARY too"), "{report}");
    assert!(!format!("{:?}", loaded().await).contains("CANARY"));
    let audit: Vec<String> =
        sqlx::query_scalar("select a::text from audit a").fetch_all(&app.db().await).await.unwrap();
    assert!(audit.iter().all(|row| !row.contains("CANARY")), "for good: no path, no value, no address");
    app.done().await;
}

/// S0-44: a partner has twenty endpoints, however many ask at once, and one that was deleted makes room.
#[tokio::test(flavor = "multi_thread")]
async fn endpoint_beyond_twenty_is_refused() {
    let app = App::new().await;
    let all = (0..24).map(|_| app.ask(&app.token, "POST", "/v1/webhooks", Some(json!({"url": URL}))));
    let (made, refused): (Vec<_>, Vec<_>) =
        futures_util::future::join_all(all).await.into_iter().partition(|answer| answer.status == 201);
    assert_eq!((made.len(), refused.len()), (20, 4));
    for answer in refused {
        answer.refused(422, "endpoint_limit");
    }
    let (_, _, other) = app.partner(named("other")).await;
    app.ask(&other, "POST", "/v1/webhooks", Some(json!({"url": URL}))).await.expect(201);
    let path = format!("/v1/webhooks/{}", id(&made[0].body));
    app.ask(&app.token, "DELETE", &path, None).await.expect(204);
    make(&app, json!({"url": URL})).await;
    app.post("/v1/webhooks", json!({"url": URL})).await.refused(422, "endpoint_limit");
    app.done().await;
}

/// S0-33: content goes to an endpoint only of a partner that was granted it, and what was granted can be taken back.
#[tokio::test]
async fn endpoint_content_needs_a_grant() {
    let (app, endpoints) = with_endpoints().await;
    let (partner, _, token) = app.partner(PartnerChange { rate_limit_tps: Some(1_000_000), ..named("orders") }).await;
    let admin = app.staff(StaffRole::Admin).await;
    let asks = json!({"url": URL, "includeContent": true, "events": ["delivery.sent"]});
    let ask = async |body: &Value| app.ask(&token, "POST", "/v1/webhooks", Some(body.clone())).await;
    let refused = ask(&asks).await.refused(422, "not_allowed");
    assert!(refused.body["detail"].as_str().unwrap().contains("webhook_content"), "{}", refused.text);
    let partners = format!("/v1/partners/{}", partner.partner_id);
    let grant = async |capabilities: Value| {
        let body = Some(json!({"capabilities": capabilities}));
        app.ask(&admin, "PATCH", &partners, body).await.expect(200).body["capabilities"].clone()
    };
    let granted = json!(["schedule", "cancel", "webhook_content"]);
    assert_eq!(grant(granted.clone()).await, granted);
    let made = ask(&asks).await.expect(201).body;
    assert_eq!(made["includeContent"], true);
    let path = format!("/v1/webhooks/{}", id(&made));
    for (capabilities, content) in [(granted, json!("It works.")), (json!([]), Value::Null)] {
        grant(capabilities).await;
        app.ask(&token, "POST", "/v1/messages", Some(email("kim@example.com"))).await.expect(202);
        app.settle_all().await;
        let got = endpoints.took();
        assert_eq!((got.len(), &got[0].1["content"]["body"]), (1, &content), "{got:?}");
    }
    // Whatever else it changes stays allowed, and so does not asking any more.
    app.ask(&token, "PATCH", &path, Some(json!({"ordered": true}))).await.expect(200);
    app.ask(&token, "PATCH", &path, Some(json!({"includeContent": true}))).await.refused(422, "not_allowed");
    app.ask(&token, "PATCH", &path, Some(json!({"includeContent": false}))).await.expect(200);
    app.done().await;
}

/// S0-44: webhooks of a paused endpoint wait without limit and go when it is resumed, including webhooks that a worker
/// parked late; other endpoints get theirs meanwhile.
#[tokio::test]
async fn endpoint_paused_has_its_webhooks_wait_until_resumed() {
    let (app, endpoints) = with_endpoints().await;
    let paused = id(&make(&app, json!({"url": "https://a.example.com/", "events": ["delivery.sent"]})).await);
    make(&app, json!({"url": "https://b.example.com/", "events": ["delivery.sent"]})).await;
    assert_eq!(patch(&app, &paused, json!({"status": "PAUSED"})).await["status"], "PAUSED");
    assert_eq!(app.count("select count(*) from deliveries").await, 0, "a pause parks nothing by itself");
    app.post(&format!("/v1/webhooks/{paused}/test"), json!({})).await.refused(422, "endpoint_not_active");
    for n in 0..3 {
        app.post("/v1/messages", email(&format!("{n}@example.com"))).await.expect(202);
    }
    for _ in 0..3 {
        app.work().await;
        app.advance(86_400);
    }
    let urls = |got: &[(String, Value)]| got.iter().map(|(url, _)| url.clone()).collect::<Vec<_>>();
    assert_eq!(urls(&endpoints.took()), ["https://b.example.com/"; 3]);
    let path = format!("/v1/webhooks/{paused}/deliveries");
    let waiting = items(&app, &path).await;
    assert_eq!(waiting.len(), 3);
    for row in &waiting {
        assert_eq!((&row["status"], &row["parked"], &row["attempts"]), (&json!("SCHEDULED"), &json!(true), &json!(0)));
        assert_eq!((&row["nextAttemptAt"], &row["lastAttempt"]), (&Value::Null, &Value::Null), "{row}");
        let one = app.get(&format!("/v1/deliveries/{}", row["deliveryId"].as_str().unwrap())).await.expect(200).body;
        assert_eq!(one["nextAt"], Value::Null, "{one}");
    }
    let health = app.get(&format!("/v1/webhooks/{paused}/health")).await.expect(200).body;
    assert_eq!((&health["status"], &health["successRate"]), (&json!("PAUSED"), &Value::Null));

    assert_eq!(patch(&app, &paused, json!({"status": "ACTIVE"})).await["status"], "ACTIVE");
    app.work().await;
    assert_eq!(urls(&endpoints.took()), ["https://a.example.com/"; 3]);
    assert!(items(&app, &path).await.iter().all(|row| row["status"] == "SENT"));

    // A worker that read it while it was paused parks a delivery after it was resumed.
    let park = "update deliveries set status = 'SCHEDULED', ready_at = '9999-01-01T00:00:00Z' where status = 'PENDING' \
                and lane >= 66 and recipient = $1";
    let parked_late = async || {
        let sent = app.post(&format!("/v1/webhooks/{paused}/test"), json!({})).await.expect(202).body;
        let parked = sqlx::query(park).bind(&paused).execute(&app.db().await).await.unwrap();
        assert_eq!(parked.rows_affected(), 1, "{sent}");
        app.work().await;
        assert_eq!(endpoints.took().len(), 0);
    };
    parked_late().await;
    flow::endpoint::release_resumed(&app.hub).await.unwrap();
    app.work().await;
    assert_eq!(endpoints.took().len(), 1);
    // LookupResult at for an hour, and once more after that.
    app.advance(2 * 3600);
    parked_late().await;
    flow::endpoint::release_resumed(&app.hub).await.unwrap();
    app.work().await;
    assert_eq!(endpoints.took().len(), 1);
    assert_eq!(app.count("select count(*) from endpoints where resumed_at is not null").await, 1);
    flow::endpoint::release_resumed(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from endpoints where resumed_at is not null").await, 0);
    app.done().await;
}

/// S0-44: parked webhooks of a deleted endpoint are canceled, and the owner of a disabled endpoint can make it active
/// again.
#[tokio::test]
async fn endpoint_deleted_has_its_webhooks_canceled() {
    let (app, endpoints) = with_endpoints().await;
    let deleted = id(&make(&app, json!({"url": URL, "events": ["delivery.sent"]})).await);
    patch(&app, &deleted, json!({"status": "PAUSED"})).await;
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.work().await;
    app.work().await;
    let token = app.fresh_token().await;
    app.ask(&token, "DELETE", &format!("/v1/webhooks/{deleted}"), None).await.expect(204);
    app.work().await;
    let report = items(&app, "/v1/deliveries?channel=WEBHOOK").await;
    assert_eq!((report.len(), &report[0]["status"]), (1, &json!("CANCELED")), "{report:?}");
    assert_eq!(endpoints.took().len(), 0);

    let gone = id(&make(&app, json!({"url": URL, "events": ["delivery.sent"]})).await);
    endpoints.refuse(Some((ErrorClass::EndpointGone, "http_410", "gone")));
    app.post("/v1/messages", email("lee@example.com")).await.expect(202);
    app.settle_all().await;
    let path = format!("/v1/webhooks/{gone}");
    let stands = app.get(&path).await.expect(200).body;
    assert_eq!((&stands["status"], &stands["disabledReason"]), (&json!("DISABLED"), &json!("gone")));
    app.post(&format!("{path}/test"), json!({})).await.refused(422, "endpoint_not_active");
    let (token, pause) = (app.fresh_token().await, Some(json!({"status": "PAUSED"})));
    app.ask(&token, "PATCH", &path, pause).await.refused(422, "endpoint_disabled");
    assert_eq!(app.get(&path).await.expect(200).body, stands, "a pause does not hide why it was disabled");
    endpoints.refuse(None);
    let stands = patch(&app, &gone, json!({"status": "ACTIVE"})).await;
    assert_eq!((&stands["status"], &stands["disabledReason"]), (&json!("ACTIVE"), &Value::Null));
    assert_eq!(stands["failingSince"], Value::Null);
    endpoints.took();
    app.post(&format!("{path}/test"), json!({})).await.expect(202);
    app.work().await;
    assert_eq!(endpoints.took().len(), 1);
    app.done().await;
}

/// S0-44, S0-46: an endpoint's list has each event with its calls and answers, filtered by status, event and time; its
/// health follows from it; a test comes to it alone.
#[tokio::test]
async fn endpoint_shows_its_deliveries_and_health() {
    let (app, endpoints) = with_endpoints().await;
    let endpoint = id(&make(&app, json!({"url": URL, "events": ["delivery.sent", "delivery.failed"]})).await);
    make(&app, json!({"url": "https://other.example.com/", "events": ["endpoint.disabled"]})).await;
    let path = format!("/v1/webhooks/{endpoint}");
    let health = async || app.get(&format!("{path}/health")).await.expect(200).body;
    assert_eq!((&health().await["deliveries"], &health().await["successRate"]), (&json!(0), &Value::Null));
    let sent = app.post("/v1/messages", email("kim@example.com")).await.expect(202).id();
    app.work().await;
    app.work().await;
    app.advance(60);
    endpoints.refuse(Some((ErrorClass::EndpointRefused, "http_503", "<b>busy</b>")));
    let failed = app.post("/v1/messages", email("bounce@example.com")).await.expect(202).id();
    app.work().await;
    app.work().await;

    let got = items(&app, &format!("{path}/deliveries")).await;
    assert_eq!(got.len(), 2, "{got:?}");
    let (newest, oldest) = (&got[0], &got[1]);
    for (row, about, event, status) in
        [(newest, &failed, "delivery.failed", "SCHEDULED"), (oldest, &sent, "delivery.sent", "SENT")]
    {
        assert_eq!((&row["about"], &row["event"], &row["status"]), (&json!(about), &json!(event), &json!(status)));
        assert_eq!(row["eventId"], json!(format!("{about}-1-1")));
        assert_eq!(row["attempts"], 1, "{row}");
    }
    assert_eq!((&oldest["lastAttempt"]["httpStatus"], &oldest["lastAttempt"]["code"]), (&json!(204), &Value::Null));
    let last = &newest["lastAttempt"];
    assert_eq!(
        (&last["httpStatus"], &last["code"], &last["reason"]),
        (&json!(503), &json!("http_503"), &json!("endpoint_refused"))
    );
    assert_eq!((&last["detail"], &last["at"]), (&json!("<b>busy</b>"), &json!("2027-03-05T00:31:00.000000Z")));
    assert!(newest["nextAttemptAt"].is_string() && newest["parked"] == false);

    for (query, wanted) in [
        ("status=SENT", vec![&sent]),
        ("status=FAILED", vec![]),
        ("event=delivery.failed", vec![&failed]),
        ("event=delivery.sent&status=SCHEDULED", vec![]),
        ("since=2027-03-05T00:31:00Z", vec![&failed]),
        ("until=2027-03-05T00:31:00Z", vec![&sent]),
        ("limit=1", vec![&failed]),
    ] {
        let found = items(&app, &format!("{path}/deliveries?{query}")).await;
        let about: Vec<&str> = found.iter().map(|row| row["about"].as_str().unwrap()).collect();
        assert_eq!(about, wanted, "{query}");
    }
    let page = app.get(&format!("{path}/deliveries?limit=1")).await.expect(200).body;
    let next = format!("{path}/deliveries?limit=1&cursor={}", page["nextCursor"].as_str().unwrap());
    let page = app.get(&next).await.expect(200).body;
    assert_eq!((&page["items"][0]["about"], &page["nextCursor"]), (&json!(sent), &Value::Null));

    flow::channel::note_answers(&app.hub).await.unwrap();
    let report = health().await;
    for (name, value) in [
        ("successRate", json!(0.5)),
        ("deliveries", json!(2)),
        ("delivered", json!(1)),
        ("failing", json!(1)),
        ("dead", json!(0)),
        ("pending", json!(1)),
        ("parked", json!(0)),
        ("failingSince", json!("2027-03-05T00:31:00.000000Z")),
        ("lastSuccessAt", json!("2027-03-05T00:30:00.000000Z")),
        ("lastFailureAt", json!("2027-03-05T00:31:00.000000Z")),
    ] {
        assert_eq!(report[name], value, "{name}: {report}");
    }
    assert_eq!(report["lastFailures"][0]["deliveryId"], newest["deliveryId"]);

    // A dead letter after the last of ten calls.
    for seconds in [10, 400, 2_000, 8_000, 20_000, 40_000, 56_000, 80_000, 96_000] {
        app.advance(seconds);
        app.work().await;
    }
    let dead = items(&app, &format!("{path}/deliveries?status=FAILED")).await;
    assert_eq!((dead.len(), &dead[0]["attempts"], &dead[0]["about"]), (1, &json!(10), &json!(failed)), "{dead:?}");
    endpoints.refuse(None);
    endpoints.took();
    let test = app.post(&format!("{path}/test"), json!({})).await.expect(202).body;
    app.work().await;
    let got = endpoints.took();
    assert_eq!((got.len(), got[0].0.as_str(), &got[0].1["event"]), (1, URL, &json!("endpoint.test")), "{got:?}");
    let newest = &items(&app, &format!("{path}/deliveries?limit=1")).await[0];
    assert_eq!((&newest["deliveryId"], &newest["about"]), (&test["deliveryId"], &Value::Null));
    assert_eq!(newest["eventId"], got[0].1["eventId"]);
    app.done().await;
}

/// S3-18: webhooks are not among the posted messages, unless asked for; each is a delivery like any other, with the
/// message it reports on; and a message's timeline has its webhooks.
#[tokio::test]
async fn webhooks_are_listed_only_where_asked_for() {
    let (app, endpoints) = with_endpoints().await;
    let endpoint = id(&make(&app, json!({"url": URL, "events": ["message.accepted", "delivery.sent"]})).await);
    endpoints.refuse(Some((ErrorClass::EndpointRefused, "http_500", "oh no")));
    let posted = app.post("/v1/messages", email("kim@example.com")).await.expect(202).id();
    app.work().await;
    endpoints.refuse(None);
    app.advance(60);
    app.work().await;
    app.work().await;
    let ids = async |path: &str| {
        let id = |item: &Value| ["messageId", "id"].map(|name| item[name].as_str().unwrap_or_default()).concat();
        items(&app, path).await.iter().map(id).collect::<Vec<_>>()
    };
    for path in [
        "/v1/messages",
        "/notifications",
        "/v1/deliveries",
        "/v1/deliveries?status=SENT",
        "/v1/deliveries?channel=EMAIL",
    ] {
        assert_eq!(ids(path).await, [posted.as_str()], "{path}");
    }
    assert_eq!(ids("/v1/messages?type=delivery.sent").await, [""; 0]);
    assert_eq!(ids("/v1/messages?channel=WEBHOOK").await, [""; 0]);
    let webhooks = items(&app, "/v1/deliveries?channel=WEBHOOK").await;
    assert_eq!(webhooks.len(), 2, "{webhooks:?}");
    let (sent, accepted) = (&webhooks[0], &webhooks[1]);
    for (row, event, event_id) in
        [(sent, "delivery.sent", format!("{posted}-1-1")), (accepted, "message.accepted", format!("{posted}-0-1"))]
    {
        assert_eq!((&row["event"], &row["eventId"]), (&json!(event), &json!(event_id)));
        assert_eq!(
            (&row["about"], &row["endpointId"], &row["status"]),
            (&json!(posted), &json!(endpoint), &json!("SENT"))
        );
        let delivery_id = row["deliveryId"].as_str().unwrap();
        let one = app.get(&format!("/v1/deliveries/{delivery_id}")).await.expect(200).body;
        assert_eq!((&one["about"], &one["eventId"]), (&row["about"], &row["eventId"]));
        assert!(one["attempts"].as_array().is_some_and(|all| !all.is_empty()));
        let own = app.message(row["messageId"].as_str().unwrap()).await;
        assert_eq!((&own["type"], &own["deliveries"][0]["eventId"]), (&json!(event), &json!(event_id)));
        assert_eq!(own["contents"], json!([{"body": ""}]), "the event is in `type` and `eventId` alone");
    }
    let whole = app.message(&posted).await;
    assert_eq!((whole["deliveries"].as_array().unwrap().len(), &whole["deliveries"][0].get("eventId")), (1, &None));

    let story = app.get(&format!("/v1/messages/{posted}/timeline")).await.expect(200).body;
    let items = story["items"].as_array().unwrap();
    let report: Vec<&Value> = items.iter().filter(|entry| entry["what"] == "webhook").collect();
    assert!(items.iter().all(|entry| (entry["what"] == "webhook") == entry.get("endpointId").is_some()), "{story}");
    let of = |row: &Value| -> Vec<(&Value, &Value)> {
        let ours: Vec<_> = report.iter().filter(|entry| entry["deliveryId"] == row["deliveryId"]).collect();
        assert!(ours.iter().all(|e| e["event"] == row["event"] && e["endpointId"] == json!(endpoint)), "{ours:?}");
        ours.into_iter().map(|entry| (&entry["attempt"], &entry["detail"])).collect()
    };
    let calls = [
        (&Value::Null, &json!("the webhook is queued for the endpoint")),
        (&json!(1), &json!("http_500 · oh no")),
        (&json!(2), &json!("HTTP 204")),
    ];
    assert_eq!(of(accepted), calls);
    assert_eq!(of(sent), calls);
    let next: Vec<&str> = report.iter().filter_map(|entry| entry["nextAttemptAt"].as_str()).collect();
    assert!(next.len() == 2 && next[0].starts_with("2027-03-05T00:30:0"), "{report:?}");
    // And where each stands, with the message.
    let listed = whole["webhooks"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{whole}");
    let one = json!({"deliveryId": sent["deliveryId"], "endpointId": endpoint, "event": "delivery.sent",
        "status": "SENT",
        "nextAttemptAt": null});
    assert!(listed.contains(&one), "{whole}");
    app.done().await;
}

/// S0-45, S3-17: the same from a terminal, in text and as JSON, with a remedy for what is wrong; a secret is printed
/// once, and a header's value never.
#[tokio::test]
async fn endpoint_commands_work_at_a_terminal() {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let on = |args: &[&str]| {
        let program = Notihub::new(&folder, args).env("NOTIHUB_DATABASE_URL", &url);
        program.env("NOTIHUB_ACCEPT_LOSS", "true")
    };
    let mut serve = on(&["serve", "--listen=127.0.0.1:0"]).start();
    let hub = format!("http://{}", serve.address().await);
    let made = on(&["partner", "create", "orders", "--output=json"]).run().await.expect(0).json();
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    let (client_id, client_secret) = (text("clientId"), text("clientSecret"));
    let webhook = async |args: &[&str]| {
        let program = on(&[&["webhook"], args].concat()).env("NOTIHUB_URL", &hub);
        program.env("NOTIHUB_CLIENT_ID", &client_id).env("NOTIHUB_CLIENT_SECRET", &client_secret).run().await
    };
    let json_of = async |args: &[&str]| webhook(&[args, &["--output=json"]].concat()).await.expect(0).json();

    let created = json_of(&["create", URL, "--events=delivery.sent,delivery.failed", "--header=X-Key: CANARY"]).await;
    assert_eq!(
        (&created["events"], &created["headers"]),
        (&json!(["delivery.sent", "delivery.failed"]), &json!(["x-key"]))
    );
    let one = id(&created);
    let second = webhook(&["create", URL, "--description=all of it"]).await.expect(0).stdout;
    assert!(
        second.contains("every event") && second.contains("whsec_") && second.contains("shown this once"),
        "{second}"
    );
    let listed = json_of(&["list"]).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains("whsec_") && !listed.to_string().contains("CANARY"));
    assert_eq!(webhook(&["list"]).await.expect(0).stdout.lines().count(), 2);
    let shown = json_of(&["show", &one]).await;
    assert_eq!((&shown["status"], &shown["health"]["deliveries"]), (&json!("ACTIVE"), &json!(0)));
    assert!(webhook(&["show", &one]).await.expect(0).stdout.contains("not called"));
    let set = json_of(&["set", &one, "--events=all", "--ordered=true", "--no-headers", "--description=x"]).await;
    assert_eq!((&set["events"], &set["ordered"], &set["headers"]), (&Value::Null, &json!(true), &json!([])));
    assert_eq!(json_of(&["set", &one, "--description="]).await["description"], Value::Null);
    assert!(webhook(&["pause", &one]).await.expect(0).stdout.contains("PAUSED"));
    let refused = webhook(&["test", &one]).await.expect(1);
    assert!(refused.stderr.contains("notihub webhook resume"), "{}", refused.stderr);
    assert_eq!(json_of(&["resume", &one]).await["status"], "ACTIVE");
    let test = json_of(&["test", &one]).await;
    assert!(test["deliveryId"].is_string());
    let got = json_of(&["deliveries", &one, "--event=endpoint.test", "--status=PENDING"]).await;
    assert_eq!(got["items"][0]["deliveryId"], test["deliveryId"]);
    let got = webhook(&["deliveries", &one]).await.expect(0).stdout;
    assert!(got.contains("endpoint.test") && got.contains("PENDING") && got.contains("0 calls"), "{got}");
    let status = async |id: &str| {
        let program = on(&["status", id]).env("NOTIHUB_URL", &hub).env("NOTIHUB_CLIENT_ID", &client_id);
        program.env("NOTIHUB_CLIENT_SECRET", &client_secret).run().await
    };
    let report = status(test["deliveryId"].as_str().unwrap()).await.expect(0).stdout;
    assert!(report.contains("WEBHOOK") && report.contains("endpoint.test, eventId "), "{report}");
    status("0000000000000-1").await.expect(1);
    webhook(&["set", &one, "--contact-email=ops@example.com", "--header=X-Key: CANARY"]).await.expect(0);
    let rotated = json_of(&["rotate", &one, "--overlap-seconds=60"]).await;
    assert!(rotated["secret"] != created["secret"] && rotated["formerSecretGoodUntil"].is_string());
    let shown = webhook(&["show", &one]).await.expect(0).stdout;
    for printed in [
        "X-Signature-Next with the new one; then",
        "ops@example.com is informed",
        "x-key",
        "one after the other",
        "1 to be sent",
    ] {
        assert!(shown.contains(printed), "{printed}: {shown}");
    }
    assert_eq!(json_of(&["delete", &one]).await["deleted"], json!(one));

    for (args, code, remedy) in [
        (&["show", one.as_str()][..], 1, "404"),
        (&["show", "x"], 2, "notihub webhook list"),
        (&["create", "https://127.0.0.1/"], 1, "--webhook-allow-network"),
        (&["replay", &one, "--since=2027-01-01T00:00:00Z", "--event=delivery.lost"], 2, "delivery.undetermined"),
        (&["create", URL, "--events=delivery.lost"], 1, "delivery.undetermined"),
        (&["create", URL, "--header=Host: CANARY"], 1, "header_reserved"),
        (&["create", URL, "--header=CANARY"], 2, "Name: value"),
        (&["set", &one], 2, "--help"),
        (&["rotate", &one, "--overlap-seconds=604801"], 2, "604800"),
        (&["deliveries", &one, "--status=LOST"], 2, "UNDETERMINED"),
    ] {
        let ended = webhook(args).await.expect(code);
        assert!(ended.stderr.contains(remedy) && !ended.stderr.contains("CANARY"), "{args:?}: {}", ended.stderr);
    }
    // The command prints a fault once; to programs as the API words it.
    let refused = webhook(&["create", "https://127.0.0.1/"]).await.expect(1).stderr;
    assert!(refused.lines().count() == 1 && refused.contains("(url_host_not_allowed)"), "{refused}");
    let refused = webhook(&["create", "https://127.0.0.1/", "--header=Host: a", "--output=json"]).await.expect(1);
    let problem: Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!((&problem["code"], &problem["reason"]), (&json!("E001"), &json!("url_host_not_allowed")));
    assert!(problem["errors"].as_array().unwrap().len() == 2 && refused.stdout.is_empty(), "{problem}");
    let refused = webhook(&["set", &id(&rotated), "--output=json"]).await.expect(2).stderr;
    assert!(serde_json::from_str::<Value>(&refused).unwrap()["detail"].is_string(), "{refused}");
    let help = webhook(&["--help"]).await.expect(0).stdout;
    for deed in ["create", "list", "show", "set", "pause", "resume", "rotate", "test", "deliveries", "delete"] {
        assert!(help.contains(&format!("  {deed} ")), "{deed}: {help}");
    }
    let ended = serve.stop().await.expect(0);
    ended.logged_json();
    assert!(!ended.stderr.contains("whsec_") && !ended.stderr.contains("CANARY"), "{}", ended.stderr);
}
