//! Partners as tenants: none sees or touches another's, each may what it was granted, and what is done to them is written
//! down.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;

use chrono::TimeDelta;
use notihub::flow::partner::{Credentials, PartnerChange};
use notihub::flow::relay;
use notihub::model::access::principal::Actor;
use notihub::model::access::role::StaffRole;
use notihub::model::channel::Channel;
use notihub::model::partner::Partner;
use notihub::{flow, store};
use serde_json::{Value, json};

use crate::processes::{Folder, Notihub, fsck};
use crate::support::{Answer, App, email, fresh_database, named, sign_in, slack_post, start_time};

/// A partner with something of everything, whose every name is its own.
struct Tenant {
    partner: Partner,
    key: Credentials,
    token: String,
    name: &'static str,
    /// Settled, and for later.
    sent: String,
    later: String,
    /// Where it wants its events, and where it does not any more.
    endpoint: String,
    doomed: String,
    /// A job for that endpoint.
    redrive: String,
}

impl Tenant {
    async fn new(app: &App, name: &'static str) -> Tenant {
        let change = PartnerChange { rate_limit_tps: Some(1_000_000), ..named(name) };
        let (partner, key, token) = app.partner(change).await;
        // The same key for both, each with a message of its own.
        let mut body = email(&format!("{name}@example.com"));
        body["clientMsgId"] = json!("same");
        body["title"] = json!(format!("title of {name}"));
        let sent = app.ask(&token, "POST", "/v1/messages", Some(body.clone())).await.expect(202).id();
        let again = app.ask(&token, "POST", "/v1/messages", Some(body)).await.expect(200);
        assert_eq!((again.id(), again.header("idempotent-replayed")), (sent.clone(), "true"));
        let mut body = email(&format!("{name}.later@example.com"));
        body["clientMsgId"] = json!(format!("only {name}"));
        body["scheduledAt"] = json!((app.hub.clock.now() + TimeDelta::hours(6)).to_rfc3339());
        let later = app.ask(&token, "POST", "/v1/messages", Some(body)).await.expect(202).id();
        let enqueued = format!("select notihub.enqueue('{name}', '{{\"clientMsgId\": \"refused {name}\"}}')");
        sqlx::raw_sql(sqlx::AssertSqlSafe(enqueued)).execute(&app.db().await).await.unwrap();
        let mut relay = relay::Relay::default();
        while relay::relay(&app.hub, &mut relay).await.unwrap() {}
        let endpoint = async |what: &str| {
            let body = json!({"url": format!("https://{name}.example.com/{what}"), "events": ["message.refused"]});
            let made = app.ask(&token, "POST", "/v1/webhooks", Some(body)).await.expect(201);
            made.body["endpointId"].as_str().unwrap().to_owned()
        };
        let (endpoint, doomed) = (endpoint("kept").await, endpoint("doomed").await);
        let window = json!({"since": app.hub.clock.now() - TimeDelta::hours(1)});
        let mut redrive = String::new();
        // Two, so that a list has another page.
        for _ in 0..2 {
            let begun = app.ask(&token, "POST", &format!("/v1/webhooks/{endpoint}/replay"), Some(window.clone())).await;
            redrive = begun.expect(202).body["redriveId"].as_str().unwrap().to_owned();
        }
        Tenant { partner, key, token, name, sent, later, endpoint, doomed, redrive }
    }

    /// What nobody else may read.
    fn traces(&self) -> Vec<String> {
        let name = self.name;
        let own = [
            &self.partner.partner_id.to_string(),
            &self.key.client_id,
            &self.sent,
            &self.later,
            &self.endpoint,
            &self.redrive,
        ]
        .map(String::clone);
        let written =
            [format!("{name}@"), format!("{name}.later@"), format!("title of {name}"), format!("only {name}")];
        [own.to_vec(), written.to_vec(), vec![format!("refused {name}"), format!("{name}.example.com")]].concat()
    }

    /// Its own id for a path.
    fn id(&self, operation: &Operation) -> String {
        let path = &operation.path;
        match path.split('/').collect::<Vec<_>>()[..] {
            // Cancel must have something to cancel.
            ["", "v1", "messages", "{id}", "cancel"] => self.later.clone(),
            ["", "v1", "messages", "{id}", ..] | ["", "notifications", "{id}"] => self.sent.clone(),
            ["", "v1", "deliveries", "{id}", ..] => format!("{}-1", self.sent),
            ["", "v1", "webhooks", "{id}"] if operation.method == "DELETE" => self.doomed.clone(),
            ["", "v1", "webhooks", "{id}", ..] => self.endpoint.clone(),
            ["", "v1", "redrives", "{id}", ..] => self.redrive.clone(),
            ["", "v1", "partners", "{id}", ..] => self.partner.partner_id.to_string(),
            ["", "v1", "keys", "{id}", ..] => self.key.client_id.clone(),
            _ => panic!("{path}: say here whose its id is"),
        }
    }
}

/// An operation of the document.
struct Operation {
    method: String,
    path: String,
    told: Value,
}

impl Operation {
    fn has(&self, parameter: &str) -> bool {
        self.told["parameters"].as_array().into_iter().flatten().any(|p| p["name"] == parameter)
    }

    fn for_admins(&self) -> bool {
        self.told["tags"][0] == "partners"
    }

    /// A partner's own to change: not for operators, who look.
    fn for_owners(&self) -> bool {
        self.told["tags"][0] == "webhooks" && self.method != "GET"
    }

    /// For operators, where it is about a message.
    fn for_operators(&self) -> bool {
        self.path == "/v1/deliveries/{id}/redrive"
    }

    /// A body that is not wrong, where one is needed.
    fn body(&self) -> Option<Value> {
        let since = json!({"since": start_time() - TimeDelta::hours(1)});
        let in_time = self.path.ends_with("/recover") || self.path.ends_with("/replay");
        self.told["requestBody"].is_object().then(|| if in_time { since } else { json!({}) })
    }

    async fn ask(&self, app: &App, token: &str, id: &str, query: &str) -> Answer {
        let path = format!("{}{query}", self.path.replace("{id}", id));
        app.ask(token, &self.method, &path, self.body()).await
    }
}

/// Every operation that asks who is there.
async fn operations(app: &App) -> Vec<Operation> {
    let document = app.get("/openapi.json").await.expect(200).body;
    let paths: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_value(document["paths"].clone()).unwrap();
    let mut found = Vec::new();
    for (path, of) in paths {
        for (method, told) in of {
            if told["security"].is_array() {
                found.push(Operation { method: method.to_uppercase(), path: path.clone(), told });
            }
        }
    }
    assert!(found.len() > 20, "the document has gone blind");
    found
}

/// All of an answer that a caller can tell apart, but the request's own id, the time, and the id that was asked for.
fn shape(answer: &Answer, id: &str) -> (u16, String, Vec<String>) {
    let own = answer.header("x-request-id");
    let ignored = ["x-request-id", "date", "ratelimit-remaining"];
    let headers = answer.headers.iter().filter(|(name, _)| !ignored.contains(&name.as_str()));
    let mut headers: Vec<String> =
        headers.map(|(name, value)| format!("{name}: {value:?}").replace(id, "ID")).collect();
    headers.sort();
    (answer.status, answer.text.replace(own, "REQUEST").replace(id, "ID"), headers)
}

/// S0-29, S0-33, S0-70: every operation with an id, as every kind of caller, with an id of its own, of another's, of
/// nobody and of no form: what is another partner's is answered byte for byte like what never was; who is nobody is told
/// nothing; what is for admins is for nobody else.
#[tokio::test]
async fn what_is_anothers_is_answered_like_what_never_was() {
    let app = App::with(&["--shards=1"]).await;
    let (a, b, c) =
        (Tenant::new(&app, "alpha").await, Tenant::new(&app, "beta").await, Tenant::new(&app, "gamma").await);
    assert_eq!(a.partner.shard, b.partner.shard, "they live together");
    app.work().await;
    let (operator, admin) = (app.staff(StaffRole::Operator).await, app.staff(StaffRole::Admin).await);
    let malformed =
        ["x", "0", "-1", "%00", "..%2fx", "'", "UUUUUUUUUUUUU", "9999999999999", "0000000000000-", "%ff", "*"];
    let with_id: Vec<Operation> =
        operations(&app).await.into_iter().filter(|operation| operation.path.contains("{id}")).collect();
    assert!(with_id.len() > 10, "{}", with_id.len());
    const CANCELED: &str = "select count(*) from deliveries where status = 'CANCELED'";
    let mut canceled = 0;
    for operation in &with_id {
        let at = format!("{} {}", operation.method, operation.path);
        let never = a.id(operation).replace(&a.id(operation)[..13], &app.hub.next_id().to_string());
        for id in [&a.id(operation), &never] {
            let answer = operation.ask(&app, "", id, "").await.refused(401, "unauthenticated");
            assert_eq!(answer.body["code"], "E002", "{at}");
        }
        for (me, other) in [(&a, &b), (&b, &a)] {
            let (own, theirs) = (me.id(operation), other.id(operation));
            let like = shape(&operation.ask(&app, &me.token, &never, "").await, &never);
            assert_eq!(shape(&operation.ask(&app, &me.token, &theirs, "").await, &theirs), like, "{at}");
            assert_eq!(app.count(CANCELED).await, canceled, "{at} took back what is another's");
            for id in malformed {
                let answer = operation.ask(&app, &me.token, id, "").await;
                assert_eq!(answer.status, like.0, "{at} with {id}: {}", answer.text);
            }
            let answer = operation.ask(&app, &me.token, &own, "").await;
            if operation.for_admins() {
                assert_eq!(answer.refused(403, "forbidden").body["code"], "E002", "{at}");
                assert_eq!(like.0, 403);
            } else if operation.for_operators() {
                assert_eq!(answer.refused(403, "forbidden").body["code"], "E002", "{at}");
                assert_eq!(like.0, 404);
            } else {
                assert!([200, 202, 204].contains(&answer.status) && like.0 == 404, "{at}: {}", answer.text);
                canceled += i64::from(operation.path.ends_with("/cancel") && operation.path.contains("messages"));
                assert!(other.traces().iter().all(|trace| !answer.text.contains(trace)), "{at}: {}", answer.text);
            }
        }
        // Who runs the hub, at a third's.
        let id = c.id(operation);
        for (token, is_admin) in [(&operator, false), (&admin, true)] {
            if (operation.for_admins() || operation.for_owners()) && !is_admin {
                for id in [&id, &never] {
                    operation.ask(&app, token, id, "").await.refused(403, "forbidden");
                }
                continue;
            }
            let answer = operation.ask(&app, token, &id, "").await;
            if operation.for_operators() {
                answer.refused(422, "not_a_dead_letter");
            } else {
                assert!([200, 202, 204].contains(&answer.status), "{at}: {}", answer.text);
            }
            for id in malformed.into_iter().chain([never.as_str()]) {
                let answer = operation.ask(&app, token, id, "").await;
                let reasons = ["not_found", "partner_unknown"];
                let told = answer.body["reason"].as_str().unwrap_or_default();
                assert!(answer.status == 404 && reasons.contains(&told), "{at} with {id}: {}", answer.text);
            }
        }
        canceled = app.count(CANCELED).await;
    }
    let looked = app.count("select count(*) from audit where action = 'look' and object like '%?%'").await;
    assert_eq!(looked, 0, "a look is noted without its query");
    app.done().await;
}

/// S0-29, S0-33, S0-46: no list, no filter, no cursor and no sum shows a partner what is another's; operators see all, and
/// whose each is (T5).
#[tokio::test]
async fn lists_hold_nobody_elses() {
    let app = App::with(&["--shards=1"]).await;
    let (a, b) = (Tenant::new(&app, "alpha").await, Tenant::new(&app, "beta").await);
    // So that the two have different sums.
    app.ask(&b.token, "POST", "/v1/messages", Some(email("beta@example.com"))).await.expect(202);
    app.work().await;
    let operator = app.staff(StaffRole::Operator).await;
    let lists: Vec<Operation> = operations(&app)
        .await
        .into_iter()
        .filter(|operation| operation.method == "GET" && !operation.path.contains("{id}"))
        .collect();
    let never = app.hub.next_id().to_string();
    let mut seen = BTreeSet::new();
    for list in &lists {
        let at = &list.path;
        for (me, other) in [(&a, &b), (&b, &a)] {
            let clean = |answer: &Answer, what: &str| {
                let found: Vec<_> = other.traces().into_iter().filter(|trace| answer.text.contains(trace)).collect();
                assert!(found.is_empty(), "{at}{what}: {found:?} in {}", answer.text);
            };
            let answer = list.ask(&app, &me.token, "", "").await;
            if list.for_admins() || ["/metrics", "/v1/providers"].contains(&at.as_str()) {
                answer.refused(403, "forbidden");
                continue;
            }
            clean(&answer.expect(200), "");
            if at == "/about" {
                continue;
            }
            seen.insert(at.clone());
            let mut queries = Vec::new();
            if list.has("limit") {
                let first = list.ask(&app, &me.token, "", "?limit=1").await.expect(200);
                let cursor = list.ask(&app, &other.token, "", "?limit=1").await.expect(200).body["nextCursor"].clone();
                if let Some(cursor) = cursor.as_str() {
                    list.ask(&app, &me.token, "", &format!("?cursor={cursor}")).await.refused(400, "cursor_invalid");
                    list.ask(&app, &operator, "", &format!("?cursor={cursor}")).await;
                }
                assert!(at.contains("refused") || first.body["nextCursor"].is_string(), "{at}: nothing to go on with");
            }
            for (name, values) in [
                ("clientMsgId", vec![format!("only {}", other.name), "same".into()]),
                ("to", vec![format!("{}@example.com", other.name)]),
                ("recipient", vec![format!("{}@example.com", other.name)]),
                ("status", vec!["COMPLETED".into(), "PENDING".into(), "SENT".into(), "SCHEDULED".into()]),
                ("type", vec!["TEST".into(), "EMAIL".into()]),
                ("channel", vec!["EMAIL".into()]),
                ("provider", vec!["smtp".into()]),
                ("since", vec!["2020-01-01T00:00:00Z".into()]),
                ("until", vec!["2099-01-01T00:00:00Z".into()]),
            ] {
                if list.has(name) {
                    let pair =
                        |value| form_urlencoded::Serializer::new(String::from("?")).append_pair(name, value).finish();
                    queries.extend(values.iter().map(|value| pair(value)));
                }
            }
            for query in queries {
                let answer = list.ask(&app, &me.token, "", &query).await;
                assert!(
                    answer.status == 200 || answer.body["reason"] == "query_invalid",
                    "{at}{query}: {}",
                    answer.text
                );
                if answer.status == 200 {
                    clean(&answer, &query);
                }
            }
            if list.has("partnerId") {
                let (mine, theirs) = (me.partner.partner_id.to_string(), other.partner.partner_id.to_string());
                let own = list.ask(&app, &me.token, "", &format!("?partnerId={mine}")).await.expect(200);
                clean(&own, "?partnerId=own");
                let like = list.ask(&app, &me.token, "", &format!("?partnerId={never}")).await;
                let like = shape(&like.refused(404, "partner_unknown"), &never);
                let answer = list.ask(&app, &me.token, "", &format!("?partnerId={theirs}")).await;
                assert_eq!(shape(&answer, &theirs), like, "{at}?partnerId=");
                list.ask(&app, &me.token, "", "?partnerId=x").await.refused(400, "query_invalid");
                // An operator sees whichever it asks for.
                let of = list.ask(&app, &operator, "", &format!("?partnerId={mine}")).await.expect(200);
                clean(&of, "?partnerId= as operator");
                let items = of.body["items"].as_array().unwrap();
                assert!(!items.is_empty() && items.iter().all(|item| item["partnerId"] == mine), "{at}: {}", of.text);
                list.ask(&app, &operator, "", &format!("?partnerId={never}")).await.refused(404, "partner_unknown");
            }
        }
        if list.for_admins() {
            list.ask(&app, &operator, "", "").await.refused(403, "forbidden");
        } else if list.has("cursor") && list.has("partnerId") {
            let all = list.ask(&app, &operator, "", "").await.expect(200);
            let whose: BTreeSet<&str> =
                all.body["items"].as_array().unwrap().iter().map(|item| item["partnerId"].as_str().unwrap()).collect();
            assert_eq!(whose.len(), 2, "{at}: {}", all.text);
        }
    }
    let wanted = [
        "/notifications",
        "/v1/deliveries",
        "/v1/intake/refused",
        "/v1/messages",
        "/v1/redrives",
        "/v1/stats/daily",
        "/v1/webhooks",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
    let total = async |token: &str| {
        let stats = app.ask(token, "GET", "/v1/stats/daily", None).await.expect(200).body;
        stats["items"].as_array().unwrap().iter().map(|item| item["total"].as_i64().unwrap()).sum::<i64>()
    };
    assert_eq!((total(&a.token).await, total(&b.token).await), (1, 2));
    app.ask(&operator, "GET", "/v1/stats/daily", None).await.refused(400, "query_required");
    app.ask(&operator, "POST", "/v1/messages", Some(email("x@example.com"))).await.refused(403, "forbidden");
    app.done().await;
}

/// S0-47, C12: a partner sees a message for a day by default, wherever it looks; operators see it after that too. What is
/// still to be sent it sees and may cancel however old, and then for a day again.
#[tokio::test]
async fn a_message_is_seen_for_a_day() {
    let app = App::new().await;
    let (partner, key, _) = app.partner(named("orders")).await;
    assert_eq!(partner.lookup_days, 1);
    let (longer, long_key, _) = app.partner(PartnerChange { lookup_days: Some(3), ..named("longer") }).await;
    assert_eq!(longer.lookup_days, 3);
    let staff = {
        let actor = Actor::local_admin("test".into());
        let permit = actor.admin_permit().unwrap();
        flow::partner::create_key(&app.hub, permit, StaffRole::Operator, "kim").await.unwrap()
    };
    let token = async |key: &Credentials| sign_in(&app.hub, key).await;
    let me = token(&key).await;
    let id = app.ask(&me, "POST", "/v1/messages", Some(email("kim@example.com"))).await.expect(202).id();
    let long = app.ask(&token(&long_key).await, "POST", "/v1/messages", Some(email("kim@example.com"))).await;
    let long = long.expect(202).id();
    let mut later = email("lee@example.com");
    later["scheduledAt"] = json!((app.hub.clock.now() + TimeDelta::days(5)).to_rfc3339());
    let canceled = app.ask(&me, "POST", "/v1/messages", Some(later.clone())).await.expect(202).id();
    let sent = app.ask(&me, "POST", "/v1/messages", Some(later)).await.expect(202).id();
    app.work().await;
    let paths = |id: &str| {
        [
            format!("/v1/messages/{id}"),
            format!("/v1/messages/{id}/timeline"),
            format!("/v1/deliveries/{id}-1"),
            format!("/notifications/{id}"),
        ]
    };
    let lists = ["/v1/messages", "/v1/deliveries", "/notifications", "/v1/messages?since=2020-01-01T00:00:00Z"];
    let sees = async |key: &Credentials, id: &str, one: bool, listed: bool| {
        let token = token(key).await;
        for path in paths(id) {
            let answer = app.ask(&token, "GET", &path, None).await;
            assert_eq!(answer.status, if one { 200 } else { 404 }, "{path}: {}", answer.text);
        }
        for path in lists {
            let answer = app.ask(&token, "GET", path, None).await;
            // Seed 003's list is a partner's own.
            if answer.status == 403 && path == "/notifications" {
                continue;
            }
            assert_eq!(answer.expect(200).text.contains(id), listed, "{path} {id}");
        }
    };
    for id in [&id, &canceled, &sent] {
        sees(&key, id, true, true).await;
    }
    app.advance(86_400);
    sees(&key, &id, true, true).await;
    app.advance(1);
    sees(&key, &id, false, false).await;
    sees(&long_key, &long, true, true).await;
    sees(&staff, &id, true, true).await;
    let path = format!("/v1/messages/{id}/cancel");
    app.ask(&token(&key).await, "POST", &path, None).await.refused(404, "not_found");
    for id in [&canceled, &sent] {
        sees(&key, id, true, false).await;
        sees(&long_key, id, false, false).await;
    }
    // Canceled on its second day, and again, as a caller does that got no answer.
    for _ in 0..2 {
        let path = format!("/v1/messages/{canceled}/cancel");
        let answer = app.ask(&token(&key).await, "POST", &path, None).await.expect(200);
        assert_eq!(answer.body["canceled"], 1);
    }
    app.advance(86_400);
    sees(&key, &canceled, true, false).await;
    app.advance(1);
    sees(&key, &canceled, false, false).await;
    app.advance(86_400);
    sees(&long_key, &long, false, false).await;
    // Sent on its fifth day.
    app.advance(2 * 86_400);
    flow::sign_in::maintain_keys(&app.hub).await.unwrap();
    app.settle_all().await;
    let answer = app.ask(&token(&key).await, "GET", &format!("/v1/messages/{sent}"), None).await.expect(200);
    assert_eq!(answer.body["status"], "COMPLETED");
    app.advance(86_401);
    sees(&key, &sent, false, false).await;
    sees(&staff, &sent, true, true).await;
    app.done().await;
}

/// S0-9, S0-10, S0-33, C3: over which channels a partner sends, whether it may post for later and whether it may cancel is
/// granted, and holds whichever way a message comes.
#[tokio::test]
async fn a_partner_may_what_it_was_granted() {
    let app = App::new().await;
    let may = PartnerChange {
        channels: Some(Some(vec![Channel::Email])),
        may_schedule: Some(false),
        may_cancel: Some(false),
        rate_limit_tps: Some(1_000_000),
        ..named("orders")
    };
    let (partner, _, token) = app.partner(may).await;
    let post = async |path: &str, body: Value| app.ask(&token, "POST", path, Some(body)).await;
    let mut later = email("kim@example.com");
    later["scheduledAt"] = json!((app.hub.clock.now() + TimeDelta::hours(1)).to_rfc3339());
    let notification = json!({"type": "T", "title": "t", "message": "m", "recipient": "kim@example.com",
        "channels": ["EMAIL", "SLACK"]});
    let mut both = email("kim@example.com");
    both["channels"].as_array_mut().unwrap().push(slack_post("x")["channels"][0].clone());
    for (body, status, reason, code) in [
        (slack_post("x"), 400, "channel_not_allowed", "E005"),
        (both, 400, "channel_not_allowed", "E005"),
        (later, 422, "not_allowed", "E001"),
    ] {
        let alone = post("/v1/messages", body.clone()).await;
        let dry = post("/v1/messages?dryRun=true", body.clone()).await;
        let batch = post("/v1/messages/batch", json!({"messages": [email("kim@example.com"), body]})).await;
        let notified = post("/notifications", body.clone()).await;
        for answer in [alone, dry, batch, notified] {
            assert_eq!(answer.refused(status, reason).body["code"], code);
        }
        let sql = format!("select notihub.enqueue('orders', '{body}')");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&app.db().await).await.unwrap();
        let mut relay = relay::Relay::default();
        while relay::relay(&app.hub, &mut relay).await.unwrap() {}
        let refused = app.ask(&token, "GET", "/v1/intake/refused?limit=1", None).await.expect(200).body;
        assert_eq!((&refused["items"][0]["reason"], &refused["items"][0]["code"]), (&json!(reason), &json!(code)));
    }
    post("/notifications", notification).await.refused(400, "channel_not_allowed");
    assert_eq!(app.count("select count(*) from messages").await, 0, "nothing of it was stored");

    let id = post("/v1/messages", email("kim@example.com")).await.expect(202).id();
    let cancel = format!("/v1/messages/{id}/cancel");
    let refused = app.ask(&token, "POST", &cancel, None).await.refused(403, "forbidden");
    assert_eq!(refused.body["code"], "E002");
    assert_eq!(app.count("select count(*) from deliveries where status = 'PENDING'").await, 1);
    // Who runs the hub may, and it is written down.
    let operator = app.staff(StaffRole::Operator).await;
    assert_eq!(app.ask(&operator, "POST", &cancel, None).await.expect(200).body["canceled"], 1);
    let admin = app.staff(StaffRole::Admin).await;
    let path = format!("/v1/partners/{}/audit?action=message.cancel", partner.partner_id);
    let audit = app.ask(&admin, "GET", &path, None).await.expect(200).body;
    assert_eq!((&audit["items"][0]["object"], &audit["items"][0]["role"]), (&json!(id), &json!("OPERATOR")));

    // Granted, it may, with the token it has.
    let body = json!({"channels": null, "capabilities": ["schedule", "cancel"]});
    let path = format!("/v1/partners/{}", partner.partner_id);
    app.ask(&admin, "PATCH", &path, Some(body)).await.expect(200);
    post("/v1/messages", slack_post("x")).await.expect(202);
    // None at all is not the same as all.
    app.ask(&admin, "PATCH", &path, Some(json!({"channels": [], "capabilities": []}))).await.expect(200);
    post("/v1/messages", email("kim@example.com")).await.refused(400, "channel_not_allowed");
    // An inactive partner enqueues nothing in SQL either.
    app.ask(&admin, "PATCH", &path, Some(json!({"status": "INACTIVE"}))).await.expect(200);
    let sql = "select notihub.enqueue('orders', '{}')";
    let refused = sqlx::raw_sql(sql).execute(&app.db().await).await.unwrap_err();
    assert_eq!(refused.as_database_error().and_then(|told| told.code()).as_deref(), Some("NE008"));
    app.settle_all().await;
    app.done().await;
}

// ---- admins

/// Fault D2: partners made seconds apart spread over all shards.
#[tokio::test]
async fn partners_made_seconds_apart_spread_over_all_shards() {
    let app = App::new().await;
    let admin = app.staff(StaffRole::Admin).await;
    for n in 0..100 {
        let body = json!({"name": format!("service-{n}")});
        app.ask(&admin, "POST", "/v1/partners", Some(body)).await.expect(201);
        app.advance(7);
    }
    let shards: Vec<(i16, i64)> = sqlx::query_as("select shard, count(*) from partners group by shard order by shard")
        .fetch_all(&app.db().await)
        .await
        .unwrap();
    assert_eq!(shards.len(), 8, "{shards:?}");
    assert!(shards.iter().all(|(_, partners)| (3..=26).contains(partners)), "{shards:?}");
    app.done().await;
}

/// The audit log, the newest first.
async fn audit(app: &App, admin: &str, query: &str) -> Vec<Value> {
    let path = format!("/v1/audit?limit=200{query}");
    app.ask(admin, "GET", &path, None).await.expect(200).body["items"].as_array().unwrap().clone()
}

/// S0-32, S0-33, S0-34: an admin makes, lists, changes and rotates partners and keys; secrets are shown once; names are
/// unique; what is wrong is refused; and each change is in the audit log with who, what, from where, before and after, for
/// good.
#[tokio::test]
async fn admins_make_partners_and_are_written_down() {
    let app = App::new().await;
    let actor = Actor::local_admin("test".into());
    let staff =
        flow::partner::create_key(&app.hub, actor.admin_permit().unwrap(), StaffRole::Admin, "kim").await.unwrap();
    let admin = sign_in(&app.hub, &staff).await;
    let ask = async |method: &str, path: &str, body: Value| app.ask(&admin, method, path, Some(body)).await;

    let made = ask("POST", "/v1/partners", json!({"name": "orders", "retentionDays": 7})).await.expect(201);
    let id = made.body["partnerId"].as_str().unwrap().to_owned();
    let path = format!("/v1/partners/{id}");
    assert_eq!(made.header("location"), path);
    let secret = made.body["clientSecret"].as_str().unwrap().to_owned();
    let defaults = json!({"code": "0000", "partnerId": id, "name": "orders", "status": "ACTIVE", "rateLimitTps": 1000,
        "lookupDays": 1, "retentionDays": 7, "timeZone": "Asia/Seoul", "region": "KR", "channels": null,
        "capabilities": ["schedule", "cancel"], "encryptContent": false});
    let found = app.ask(&admin, "GET", &path, None).await.expect(200);
    assert_eq!(found.body, defaults, "and no secret");
    app.ask(&admin, "GET", made.header("location"), None).await.expect(200);

    for (body, reason) in [
        (json!({}), "required"),
        (json!({"name": "orders"}), "name_taken"),
        (json!({"name": "notihub"}), "name_reserved"),
        (json!({"name": "NotiHub"}), "name_reserved"),
        (json!({"name": "notihub-alerts"}), "name_reserved"),
        (json!({"name": ""}), "empty"),
        (json!({"name": "a\nb"}), "control_character"),
        (json!({"name": "a\0b"}), "control_character"),
        (json!({"name": "x".repeat(65)}), "content_too_long"),
        (json!({"name": "x", "timeZone": "Mars/Olympus"}), "tz_unknown"),
        (json!({"name": "x", "timeZone": "+09"}), "tz_unknown"),
        (json!({"name": "x", "region": "kr"}), "region_invalid"),
        (json!({"name": "x", "rateLimitTps": 0}), "min"),
        (json!({"name": "x", "rateLimitTps": 1_000_001}), "max"),
        (json!({"name": "x", "lookupDays": 0}), "min"),
        (json!({"name": "x", "retentionDays": 3651}), "max"),
        (json!({"name": "x", "retentionDays": 1.5}), "type_mismatch"),
        (json!({"name": "x", "status": "SLEEPING"}), "enum"),
        (json!({"name": "x", "channels": ["PIGEON"]}), "enum"),
        (json!({"name": "x", "capabilities": ["fly"]}), "enum"),
        (json!({"name": "x", "clientSecret": "mine"}), "unknown_field"),
        (json!({"name": "x", "shard": 3}), "unknown_field"),
        (json!({"name": "x", "partnerId": id}), "unknown_field"),
    ] {
        ask("POST", "/v1/partners", body.clone()).await.refused(422, reason);
        if reason != "required" && body["name"] != json!("orders") && !reason.starts_with("tz") {
            ask("PATCH", &path, body).await.refused(422, reason);
        }
    }
    ask("PATCH", &path, json!({"timeZone": "Asia/Tokyo"})).await.refused(422, "not_changeable");
    assert_eq!(app.ask(&admin, "GET", &path, None).await.expect(200).body, defaults, "nothing of it was done");
    ask("POST", "/v1/partners", json!({"name": "billing"})).await.expect(201);
    ask("PATCH", &path, json!({"name": "billing"})).await.refused(422, "name_taken");
    ask("PATCH", "/v1/partners/0000000000000", json!({})).await.refused(404, "partner_unknown");

    // What is left out stays; null empties where nothing is something.
    let set = ask("PATCH", &path, json!({"channels": ["SMS", "EMAIL"], "rateLimitTps": 5})).await.expect(200).body;
    assert_eq!((&set["channels"], &set["retentionDays"]), (&json!(["SMS", "EMAIL"]), &json!(7)));
    let set = ask("PATCH", &path, json!({"retentionDays": null})).await.expect(200).body;
    assert_eq!((&set["channels"], &set["retentionDays"]), (&json!(["SMS", "EMAIL"]), &json!(null)));
    let set = ask("PATCH", &path, json!({"channels": null})).await.expect(200).body;
    assert_eq!((&set["channels"], &set["rateLimitTps"]), (&json!(null), &json!(5)));
    let nothing = json!({"name": null, "status": null, "rateLimitTps": null, "lookupDays": null, "region": null});
    assert_eq!(ask("PATCH", &path, nothing).await.expect(200).body, set, "elsewhere it is like leaving it out");

    // Names, a page at a time.
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = app.ask(&admin, "GET", &format!("/v1/partners?limit=1{after}"), None).await.expect(200).body;
        names.push(page["items"][0]["name"].as_str().unwrap().to_owned());
        assert!(!page.to_string().contains("Secret"));
        match page["nextAfter"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["billing", "orders", "test"]);

    // Keys.
    let rotated = ask("POST", &format!("{path}/key/rotate"), json!({"overlapSeconds": 60})).await.expect(200).body;
    assert_eq!(rotated["clientId"], made.body["clientId"], "S0-32: one key");
    assert_ne!(rotated["clientSecret"], made.body["clientSecret"]);
    for (body, reason) in [
        (json!({"overlapSeconds": -1}), "min"),
        (json!({"overlapSeconds": 2_592_001}), "max"),
        (json!({"overlap": 1}), "unknown_field"),
    ] {
        ask("POST", &format!("{path}/key/rotate"), body).await.refused(422, reason);
    }
    for (body, reason) in [
        (json!({"name": "x", "role": "PARTNER"}), "enum"),
        (json!({"name": "x", "role": "ROOT"}), "enum"),
        (json!({"name": "x"}), "required"),
        (json!({"role": "ADMIN"}), "required"),
        (json!({"name": "x", "role": "ADMIN", "partnerId": id}), "unknown_field"),
    ] {
        ask("POST", "/v1/keys", body).await.refused(422, reason);
    }
    let key = ask("POST", "/v1/keys", json!({"name": "lee", "role": "OPERATOR"})).await.expect(201).body;
    let key_id = key["clientId"].as_str().unwrap();
    let again = ask("POST", &format!("/v1/keys/{key_id}/rotate"), json!({})).await.expect(200).body;
    app.ask(&admin, "DELETE", &format!("/v1/keys/{key_id}"), None).await.expect(204);
    let listed = app.ask(&admin, "GET", "/v1/keys", None).await.expect(200);
    let of = |id: &Value| listed.body["items"].as_array().unwrap().iter().find(|k| k["clientId"] == *id).unwrap();
    assert!(of(&key["clientId"])["revokedAt"].is_string());
    assert!(of(&rotated["clientId"])["formerSecretGoodUntil"].is_string());
    assert_eq!(of(&rotated["clientId"])["partnerId"], json!(id));

    // All of it is written down.
    let log = audit(&app, &admin, &format!("&actor={}", staff.client_id)).await;
    let deeds: Vec<(&str, &str)> = log
        .iter()
        .filter(|e| e["action"] != "look")
        .map(|e| (e["action"].as_str().unwrap(), e["object"].as_str().unwrap_or("-")))
        .collect();
    let billing = deeds.iter().filter(|d| d.0 == "partner.create").map(|d| d.1).find(|o| *o != id).unwrap();
    let wanted = [
        ("key.revoke", key_id),
        ("key.rotate", key_id),
        ("key.create", key_id),
        ("key.rotate", rotated["clientId"].as_str().unwrap()),
        ("partner.update", &id),
        ("partner.update", &id),
        ("partner.update", &id),
        ("partner.update", &id),
        ("partner.create", billing),
        ("partner.create", &id),
        ("sign_in", "-"),
    ];
    // What was refused changed nothing, and is no deed. The first sign-in came from the machine itself.
    assert_eq!(deeds, wanted, "{log:#?}");
    for entry in log.iter().filter(|e| e["action"] != "sign_in") {
        assert_eq!((&entry["role"], &entry["address"]), (&json!("ADMIN"), &json!("127.0.0.1")), "{entry}");
        assert!(entry["requestId"].as_str().is_some_and(|id| id.len() == 13), "{entry}");
    }
    let update = log.iter().filter(|e| e["action"] == "partner.update").nth(2).unwrap();
    assert_eq!((&update["before"]["retentionDays"], &update["after"]["retentionDays"]), (&json!(7), &json!(null)));
    assert_eq!(update["before"]["channels"], update["after"]["channels"]);
    let own = app.ask(&admin, "GET", &format!("{path}/audit"), None).await.expect(200).body;
    let own: Vec<_> = own["items"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(
        own,
        ["key.rotate", "partner.update", "partner.update", "partner.update", "partner.update", "partner.create"]
    );
    let all = format!("{log:?}{}{}", listed.text, found.text);
    for secret in [&secret, rotated["clientSecret"].as_str().unwrap(), again["clientSecret"].as_str().unwrap()] {
        assert!(!all.contains(secret), "a secret is told twice");
    }

    // A look is written down, without what it asked for.
    let operator = app.staff(StaffRole::Operator).await;
    app.ask(&operator, "GET", "/v1/messages?to=kim@example.com", None).await.expect(200);
    let looks = audit(&app, &admin, "&action=look").await;
    assert!(looks.iter().any(|e| e["object"] == "/v1/messages" && e["role"] == "OPERATOR"), "{looks:?}");
    assert!(!format!("{looks:?}").contains("kim@example.com"));

    // For good.
    for sql in ["update audit set actor = 'nobody'", "delete from audit", "truncate audit"] {
        let refused = sqlx::raw_sql(sql).execute(&app.db().await).await.unwrap_err();
        assert!(refused.to_string().contains("only ever added to"), "{sql}: {refused}");
    }
    app.done().await;
}

/// S0-32, S0-34: whoever else does the same at the same moment, a name has one partner and a partner has one key.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_and_a_key_are_won_by_one() {
    let app = App::new().await;
    let admin = app.staff(StaffRole::Admin).await;
    for round in 0..10 {
        let body = json!({"name": format!("made {round}")});
        let all = (0..8).map(|_| app.ask(&admin, "POST", "/v1/partners", Some(body.clone())));
        let answers = futures_util::future::join_all(all).await;
        let made: Vec<_> = answers.iter().filter(|a| a.status == 201).collect();
        assert_eq!(made.len(), 1);
        for answer in answers.into_iter().filter(|a| a.status != 201) {
            answer.refused(422, "name_taken");
        }
        let mut ids = Vec::new();
        for n in 0..6 {
            let made = app.ask(&admin, "POST", "/v1/partners", Some(json!({"name": format!("{round} {n}")}))).await;
            ids.push(made.expect(201).body["partnerId"].as_str().unwrap().to_owned());
        }
        let paths: Vec<String> = ids.iter().map(|id| format!("/v1/partners/{id}")).collect();
        let body = json!({"name": format!("renamed {round}")});
        let all = paths.iter().map(|path| app.ask(&admin, "PATCH", path, Some(body.clone())));
        let answers = futures_util::future::join_all(all).await;
        assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
        for answer in answers.into_iter().filter(|a| a.status != 200) {
            answer.refused(422, "name_taken");
        }
    }
    // A partner from before there were keys: its first is made by whoever rotates first.
    let actor = Actor::local_admin("test".into());
    let permit = actor.admin_permit().unwrap();
    for n in 0..10 {
        let old = Partner::new(app.hub.next_id(), format!("old {n}"), 0);
        assert!(store::partner::insert(app.hub.store.api(), &old, app.hub.clock.now()).await.unwrap());
        let all = (0..6).map(|_| flow::partner::rotate(&app.hub, permit, old.partner_id, TimeDelta::hours(1)));
        let made = futures_util::future::join_all(all).await;
        let ids: BTreeSet<String> = made.iter().flatten().map(|c| c.client_id.clone()).collect();
        assert_eq!(ids.len(), 1, "every secret that was shown is of the one key");
    }
    let doubled = "insert into keys (client_id, role, partner_id, name, secret_hash, created_at)
        select 'second', role, partner_id, name, secret_hash, created_at from keys where partner_id is not null limit 1";
    let refused = sqlx::raw_sql(doubled).execute(&app.db().await).await.unwrap_err();
    let constraint = refused.as_database_error().and_then(|told| told.constraint().map(str::to_owned));
    assert_eq!(constraint.as_deref(), Some("uk_key_partner"));
    app.done().await;
}

// ---- the program

fn on(folder: &Folder, url: &str, args: &[&str]) -> Notihub {
    Notihub::new(folder, args).env("NOTIHUB_DATABASE_URL", url).env("NOTIHUB_ACCEPT_LOSS", "true")
}

/// Of what `partner create`, `rotate` or `bootstrap` printed as text.
fn shown(text: &str) -> Credentials {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.split_whitespace().next().unwrap().to_owned()
    };
    Credentials { client_id: field("clientId"), client_secret: field("clientSecret") }
}

fn told(value: &Value) -> Credentials {
    let text = |name: &str| value[name].as_str().unwrap_or_else(|| panic!("{name}: {value}")).to_owned();
    Credentials { client_id: text("clientId"), client_secret: text("clientSecret") }
}

/// S0-29, S0-32, S3-17, S3-39: from nothing to a posted message with the program alone, each command in both of its forms,
/// and a remedy with each error.
#[tokio::test]
async fn the_program_makes_partners_and_keys() {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let run = async |args: &[&str]| on(&folder, &url, args).run().await;
    let json_of = async |args: &[&str]| run(&[args, &["--output=json"]].concat()).await.expect(0).json();
    let mut serve = on(&folder, &url, &["serve", "--work", "--listen=127.0.0.1:0"]).start();
    let address = serve.address().await;
    let hub = format!("--url=http://{address}");
    let _already = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let signs_in = async |key: &Credentials| {
        let body = serde_json::to_string(key).unwrap();
        let request = http.post(format!("http://{address}/v1/auth/token")).header("content-type", "application/json");
        Answer::read(request.body(body)).await
    };
    let token =
        async |key: &Credentials| signs_in(key).await.expect(200).body["accessToken"].as_str().unwrap().to_owned();

    let admin = shown(&run(&["partner", "bootstrap"]).await.expect(0).stdout);
    let second = run(&["partner", "bootstrap"]).await.expect(1);
    assert!(second.stderr.contains("notihub key create --role ADMIN"), "{}", second.stderr);
    let made = json_of(&["partner", "create", "orders", "--rate-limit-tps=50", "--channels=SMS,EMAIL"]).await;
    assert_eq!((&made["rateLimitTps"], &made["channels"]), (&json!(50), &json!(["SMS", "EMAIL"])));
    let orders = told(&made);
    let billing = shown(&run(&["partner", "create", "billing", "--lookup-days=3"]).await.expect(0).stdout);
    for key in [&admin, &orders, &billing] {
        token(key).await;
    }

    // As with curl.
    let bearer = token(&orders).await;
    let request = http.post(format!("http://{address}/v1/messages")).bearer_auth(&bearer);
    let request = request.header("content-type", "application/json").body(email("kim@example.com").to_string());
    Answer::read(request).await.expect(202);
    let request = http.get(format!("http://{address}/v1/partners")).bearer_auth(token(&admin).await);
    assert_eq!(Answer::read(request).await.expect(200).body["items"].as_array().unwrap().len(), 2);

    let listed = json_of(&["partner", "list"]).await;
    let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["billing", "orders"]);
    let text = run(&["partner", "list"]).await.expect(0).stdout;
    assert!(text.contains("orders") && text.contains("50/s") && text.contains("SMS, EMAIL"), "{text}");
    let id = made["partnerId"].as_str().unwrap();
    let by_id = json_of(&["partner", "show", id]).await;
    assert_eq!(by_id, json_of(&["partner", "show", "orders"]).await);
    assert!(by_id.get("clientSecret").is_none());
    assert!(run(&["partner", "show", "orders"]).await.expect(0).stdout.contains(id));
    let set = json_of(&["partner", "set", "orders", "--name=sales", "--may-cancel=false"]).await;
    assert_eq!((&set["name"], &set["mayCancel"], &set["rateLimitTps"]), (&json!("sales"), &json!(false), &json!(50)));
    assert!(run(&["partner", "set", "sales", "--rate-limit-tps=60"]).await.expect(0).stdout.contains("60/s"));

    // A new secret, with both good for a while, and then without.
    let rotated = shown(&run(&["partner", "rotate", "sales", "--overlap-seconds=600"]).await.expect(0).stdout);
    token(&orders).await;
    token(&rotated).await;
    let last = told(&json_of(&["partner", "rotate", "sales"]).await);
    assert_eq!((signs_in(&orders).await.status, signs_in(&rotated).await.status), (401, 401));
    token(&last).await;
    run(&["partner", "set", "sales", "--status=INACTIVE"]).await.expect(0);
    assert_eq!(signs_in(&last).await.refused(403, "partner_inactive").body["code"], "E008");
    run(&["partner", "set", "sales", "--status=ACTIVE"]).await.expect(0);

    let operator = shown(&run(&["key", "create", "kim"]).await.expect(0).stdout);
    let other = told(&json_of(&["key", "create", "lee", "--role=ADMIN"]).await);
    let keys = json_of(&["key", "list"]).await;
    let role_of = |key: &Credentials| {
        let listed = keys["items"].as_array().unwrap().iter().find(|k| k["clientId"] == key.client_id.as_str());
        listed.unwrap()["role"].as_str().unwrap().to_owned()
    };
    assert_eq!([&admin, &operator, &other, &orders].map(role_of), ["ADMIN", "OPERATOR", "ADMIN", "PARTNER"]);
    assert!(!keys.to_string().contains("Secret"));
    let renewed = told(&json_of(&["key", "rotate", &operator.client_id]).await);
    assert_eq!(signs_in(&operator).await.status, 401);
    token(&renewed).await;
    run(&["key", "revoke", &other.client_id]).await.expect(0);
    assert_eq!(signs_in(&other).await.status, 401);
    assert_eq!(json_of(&["key", "revoke", &other.client_id]).await["revoked"], json!(other.client_id));
    assert!(run(&["key", "list"]).await.expect(0).stdout.contains("revoked"));
    let before = token(&last).await;
    let kid = json_of(&["key", "rotate-signing"]).await;
    assert_eq!(kid["atOnce"], json!(false));
    let asks = async |token: &str| {
        let request = http.get(format!("http://{address}/v1/messages")).bearer_auth(token);
        Answer::read(request).await.status
    };
    assert_eq!(asks(&before).await, 200);
    assert!(run(&["key", "rotate-signing", "--at-once"]).await.expect(0).stdout.contains("void"));
    crate::processes::until("the hub has heard of it", async || asks(&before).await == 401).await;
    assert_eq!(asks(&token(&last).await).await, 200);
    // At a terminal elsewhere: in the environment, and never on the command line's echo.
    let as_billing = |args: &[&str]| {
        on(&folder, &url, args)
            .env("NOTIHUB_CLIENT_ID", &billing.client_id)
            .env("NOTIHUB_CLIENT_SECRET", &billing.client_secret)
    };
    let send = ["send", &hub, "--email=kim@example.com", "--subject=Hi", "--body=Hello", "--wait", "--output=json"];
    let sent = as_billing(&send).run().await.expect(0).json();
    let status = as_billing(&["status", &hub, sent["messageId"].as_str().unwrap()]).run().await.expect(0);
    assert!(status.stdout.contains("COMPLETED"));
    assert!(as_billing(&["tail", &hub, "--no-follow"]).run().await.expect(0).stdout.lines().count() == 1);

    // Each error names its remedy.
    for (args, code, remedy) in [
        (&["partner", "show", "nobody"][..], 1, "notihub partner list"),
        (&["partner", "set", "nobody", "--name=x"], 1, "notihub partner list"),
        (&["partner", "rotate", "nobody"], 1, "notihub partner list"),
        (&["partner", "create", "billing"], 1, "another partner"),
        (&["partner", "set", "sales", "--name=billing"], 1, "another partner"),
        (&["partner", "create", "x", "--time-zone=Mars/Olympus"], 1, "Asia/Seoul"),
        (&["partner", "create", ""], 2, "one line"),
        (&["partner", "create", "a\nb"], 2, "one line"),
        (&["partner", "set", "sales", "--name= "], 2, "one line"),
        (&["key", "create", "a\u{202e}b"], 2, "one line"),
        (&["key", "create", "x", "--role=PARTNER"], 2, "notihub partner create"),
        (&["key", "create", "x", "--role=ROOT"], 2, "PARTNER, OPERATOR, ADMIN"),
        (&["key", "rotate", "nobody"], 1, "notihub key list"),
        (&["key", "revoke", "nobody"], 1, "notihub key list"),
        (&["partner", "set", "sales", "--status=ASLEEP"], 2, "ACTIVE"),
        (&["partner", "set", "sales", "--channels=PIGEON"], 2, "KAKAO_ALIMTALK"),
        (&["tail", &hub, "--no-follow"], 1, "NOTIHUB_CLIENT_SECRET"),
        (&["tail", &hub, "--no-follow", "--client-id=x"], 2, "both"),
        (&["tail", &hub, "--no-follow", "--client-id=x", "--client-secret=y"], 1, "clientSecret"),
    ] {
        let data = folder.path().join("empty");
        let ended = on(&folder, &url, args).env("NOTIHUB_DATA_DIR", data).run().await.expect(code);
        assert!(ended.stderr.contains(remedy), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.matches("name_taken").count() <= 1, "said once: {}", ended.stderr);
    }
    serve.stop().await.expect(0).logged_json();
    fsck(&folder, &url).await;
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let resealed = on(&folder, &url, &["key", "reseal", "--output=json"]).env("NOTIHUB_MASTER_KEY", key).run().await;
    assert!(resealed.expect(0).json()["signingKeys"].as_i64().is_some_and(|n| n > 0));
    // Without it the log says what is missing, and work goes on under a new key.
    let unopened = run(&["partner", "list"]).await.expect(0);
    assert!(unopened.stderr.contains("--master-key"), "{}", unopened.stderr);
}

/// S0-29, S3-6, S3-17: an `up` makes its keys once and keeps them, for its owner's eyes alone; who sits at its machine
/// needs no more.
#[tokio::test]
async fn up_keeps_its_keys() {
    let folder = Folder::new();
    let data = format!("--data-dir={}", folder.data().display());
    let mut kept = Vec::new();
    for round in 0..2 {
        let mut up = Notihub::new(&folder, &["up", "--listen=127.0.0.1:0", &data]).start();
        let hub = format!("--url=http://{}", up.address().await);
        let run = async |args: &[&str]| Notihub::new(&folder, &[args, &[&data]].concat()).run().await;
        let sent = run(&["send", &hub, "--email=kim@example.com", "--subject=s", "--body=b", "--wait"]).await;
        assert!(sent.expect(0).stdout.contains("COMPLETED"));
        assert_eq!(run(&["tail", &hub, "--no-follow"]).await.expect(0).stdout.lines().count(), round + 1);
        let partners = Notihub::new(&folder, &["partner", &data, "list", "--output=json"]).run().await.expect(0).json();
        assert_eq!(partners["items"].as_array().unwrap().len(), 1);
        let files = ["credentials.json", "master.key"].map(|name| folder.data().join(name));
        for file in &files {
            let mode = std::fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        kept.push(files.map(|file| std::fs::read_to_string(file).unwrap()));
        let ended = up.stop().await.expect(0);
        let secret = kept[round][1].trim().to_owned();
        assert!(!ended.stderr.contains(&secret) && !ended.stdout.contains(&secret), "the master key is told nobody");
    }
    assert_eq!(kept[0], kept[1]);
}
