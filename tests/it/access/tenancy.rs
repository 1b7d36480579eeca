//! Tenancy: another partner's data is answered like what never was.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use notihub::flow::partner::{Credentials, PartnerChange};
use notihub::flow::{self, relay};
use notihub::model::access::principal::Actor;
use notihub::model::access::role::StaffRole;
use notihub::model::channel::Channel;
use notihub::model::partner::Partner;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, email, named, sign_in, slack_post, start_time};

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

    /// Names and ids that only this partner may read.
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

    /// A partner's own to change: operators may only read it.
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

/// Every operation that needs a signed-in caller.
async fn operations(app: &App) -> Vec<Operation> {
    let document = app.get("/openapi.json").await.expect(200).body;
    let paths: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_value(document["paths"].clone()).unwrap();
    let mut found = Vec::new();
    for (path, of) in paths {
        for (method, told) in of {
            // Users of partners: `user::isolation`, and `item_of_others_is_answered_like_none`.
            let of_users =
                ["users", "partner-users", "inbox", "rooms", "channels"].iter().any(|tag| told["tags"][0] == *tag);
            if told["security"].is_array() && !of_users {
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

/// S0-29, S0-33, S0-70: every operation with an id is asked by every kind of caller, with an id of its own, of another
/// partner, of no object and of no valid form. The id of another partner is answered byte for byte like an id that
/// never was. An unauthenticated caller gets 401 alone. Operations for admins refuse all other callers.
#[tokio::test]
async fn id_of_another_partner_is_answered_like_an_unknown_one() {
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
        // Staff ask for what belongs to a third partner.
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

/// S0-29, S0-33, S0-46: no list, no filter, no cursor and no sum shows a partner what is another's; operators see all,
/// and whose each is (T5).
#[tokio::test]
async fn list_has_the_partners_own_alone() {
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
        "/v1/ledger",
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
    let accepted = async |token: &str| {
        let ledger = app.ask(token, "GET", "/v1/ledger", None).await.expect(200).body;
        let items = ledger["items"].as_array().unwrap();
        let figure = |item: &Value| (item["partnerId"].clone(), item["messages"]["accepted"].as_i64().unwrap());
        items.iter().map(figure).collect::<Vec<_>>()
    };
    let of = |tenant: &Tenant| Value::from(tenant.partner.partner_id.to_string());
    let (of_a, of_b) = (accepted(&a.token).await, accepted(&b.token).await);
    assert_eq!((of_a.len(), &of_a[0].0, of_b.len(), &of_b[0].0), (1, &of(&a), 1, &of(&b)));
    assert_eq!(of_a[0].1 + 1, of_b[0].1);
    assert_eq!(accepted(&operator).await, [of_a, of_b].concat());
    app.ask(&operator, "GET", "/v1/stats/daily", None).await.refused(400, "query_required");
    app.ask(&operator, "POST", "/v1/messages", Some(email("x@example.com"))).await.refused(403, "forbidden");
    app.done().await;
}

/// S0-47, C12: a partner sees a message for a day by default, wherever it looks; operators see it after that too. What
/// is still to be sent it sees and may cancel however old, and then for a day again.
#[tokio::test]
async fn message_is_visible_to_its_partner_for_a_day() {
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

/// S0-9, S0-10, S0-33, C3: over which channels a partner sends, whether it may post for later and whether it may cancel
/// is granted, and holds whichever way a message comes.
#[tokio::test]
async fn partner_may_do_what_it_was_granted() {
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
    // An operator may, and the audit log has an entry.
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
