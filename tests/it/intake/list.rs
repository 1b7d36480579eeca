//! Lists: filters, pages, cursors and searches.

use std::collections::BTreeSet;

use notihub::flow::partner::PartnerChange;
use notihub::model::access::role::StaffRole;
use serde_json::{Value, json};

use crate::intake::{changed, good};
use crate::support::app::{App, email, named as named_partner, slack_post};

async fn list(app: &App, path: &str) -> Vec<Value> {
    app.get(path).await.expect(200).body["items"].as_array().unwrap().clone()
}

/// The field of each item.
async fn named(app: &App, path: &str, field: &str) -> Vec<String> {
    list(app, path).await.iter().map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
}

/// Walks a list to its end; `between` runs after each page.
async fn walk(app: &App, path: &str, field: &str, mut between: impl AsyncFnMut()) -> Vec<String> {
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let next = cursor.map_or_else(String::new, |c| format!("&cursor={c}"));
        let page = app.get(&format!("{path}{next}")).await.expect(200).body;
        let items = page["items"].as_array().unwrap();
        all.extend(items.iter().map(|item| item[field].as_str().unwrap().to_owned()));
        cursor = page["nextCursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return all;
        }
        assert!(all.len() < 10_000, "a list without end");
        between().await;
    }
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

/// Posts messages with these ids of our own, a second apart.
async fn posted(app: &App, bodies: Vec<(&str, Value)>) {
    for (key, body) in bodies {
        app.post("/v1/messages", with(body, "clientMsgId", json!(key))).await.expect(202);
        app.advance(1);
    }
}

/// S3-4, S3-18: each filter lets through what it says, and several together what all of them say.
#[tokio::test]
async fn message_list_with_filters_has_what_they_let_through() {
    let app = App::new().await;
    let both = json!({"type": "PAY", "title": "t", "body": "b", "priority": "URGENT", "channels": [
        {"channel": "EMAIL", "to": ["bounce@b.kr", "lee@b.kr"]}, {"channel": "SLACK", "to": "dev"}]});
    posted(
        &app,
        vec![
            ("a", email("kim@b.kr")),
            ("b", slack_post("x")),
            ("c", with(email("bounce@b.kr"), "type", json!("PAY"))),
            ("d", both),
            ("e", with(email("kim@b.kr"), "scheduledAt", json!("2027-03-06T00:00:00Z"))),
        ],
    )
    .await;
    app.work().await;
    let ids = async |query: &str| named(&app, &format!("/v1/messages?{query}"), "clientMsgId").await.concat();
    for (query, wanted) in [
        ("", "edcba"),
        ("type=PAY", "dc"),
        ("type=pay", ""),
        ("channel=SLACK", "db"),
        ("channel=EMAIL", "edca"),
        ("channel=SMS", ""),
        ("clientMsgId=b", "b"),
        ("clientMsgId=nobody", ""),
        ("to=kim@b.kr", "ea"),
        ("to=lee@b.kr", "d"),
        ("to=dev", "d"),
        ("to=kim", ""),
        ("status=PENDING", "e"),
        ("status=COMPLETED", "ba"),
        ("status=PARTIAL", "d"),
        ("status=FAILED", "c"),
        ("status=PROCESSING", ""),
        ("status=CANCELED", ""),
        ("since=2027-03-05T00:30:02Z", "edc"),
        ("until=2027-03-05T00:30:02Z", "ba"),
        ("since=2027-03-05T00:30:01Z&until=2027-03-05T00:30:03Z", "cb"),
        ("since=2027-03-05T09:30:02%2B09:00", "edc"),
        ("since=2027-03-05T00:30:03Z&until=2027-03-05T00:30:01Z", ""),
        ("since=9999-12-31T00:00:00Z", ""),
        ("until=9999-12-31T00:00:00Z", "edcba"),
        ("since=0000-01-01T00:00:00Z", "edcba"),
        ("until=1970-01-01T00:00:00Z", ""),
        ("type=PAY&channel=SLACK", "d"),
        ("channel=SLACK&to=dev", "d"),
        // Over that channel to that recipient, not over the one and to the other.
        ("channel=SLACK&to=lee@b.kr", ""),
        ("type=TEST&status=COMPLETED&channel=EMAIL&to=kim@b.kr&until=2027-03-05T00:30:01Z", "a"),
        ("limit=2", "ed"),
        ("limit=2&type=TEST", "eb"),
    ] {
        assert_eq!(ids(query).await, wanted, "{query}");
    }
    let item = &list(&app, "/v1/messages?clientMsgId=d").await[0];
    assert_eq!(
        (&item["status"], &item["priority"], &item["deliveryCount"]),
        (&json!("PARTIAL"), &json!("URGENT"), &json!(3))
    );
    app.done().await;
}

/// S3-4, S3-18: deliveries can be filtered by status, channel, provider, error, recipient and time; newest message
/// first, in the order in which the message named its recipients.
#[tokio::test]
async fn delivery_list_with_filters_has_what_they_let_through() {
    let app = App::new().await;
    let both = json!({"type": "A", "title": "t", "body": "b", "channels": [
        {"channel": "EMAIL", "to": ["bounce@b.kr", "full@b.kr"]}, {"channel": "SLACK", "to": "dev"}]});
    posted(&app, vec![("a", email("kim@b.kr")), ("b", both), ("c", slack_post("x"))]).await;
    app.work().await;
    app.post("/v1/messages", email("new@b.kr")).await.expect(202);
    let to = async |query: &str| named(&app, &format!("/v1/deliveries?{query}"), "to").await.join(" ");
    for (query, wanted) in [
        ("", "new@b.kr ops bounce@b.kr full@b.kr dev kim@b.kr"),
        ("status=SENT", "ops dev kim@b.kr"),
        ("status=FAILED", "bounce@b.kr"),
        ("status=SCHEDULED", "full@b.kr"),
        ("status=PENDING", "new@b.kr"),
        ("status=UNDETERMINED", ""),
        ("channel=EMAIL", "new@b.kr bounce@b.kr full@b.kr kim@b.kr"),
        ("channel=SLACK&status=SENT", "ops dev"),
        ("provider=slack", "ops dev"),
        ("provider=smtp", "bounce@b.kr full@b.kr kim@b.kr"),
        ("provider=none", ""),
        ("error=no_such_recipient", "bounce@b.kr"),
        ("error=throttled&status=FAILED", ""),
        ("to=dev", "dev"),
        ("since=2027-03-05T00:30:02Z", "new@b.kr ops"),
        ("until=2027-03-05T00:30:01Z", "kim@b.kr"),
        ("limit=3", "new@b.kr ops bounce@b.kr"),
    ] {
        assert_eq!(to(query).await, wanted, "{query}");
    }
    let sent = &list(&app, "/v1/deliveries?to=kim@b.kr").await[0];
    let id = sent["deliveryId"].as_str().unwrap();
    let one = app.get(&format!("/v1/deliveries/{id}")).await.expect(200).body;
    assert_eq!(
        (&one["status"], &one["attempts"][0]["outcome"], &one["code"]),
        (&json!("SENT"), &json!("ACCEPTED"), &json!("0000"))
    );
    assert_eq!(one["messageId"], sent["messageId"]);
    app.done().await;
}

/// S3-18: page by page every message comes once, newest first, whatever arrives meanwhile.
#[tokio::test]
async fn message_pages_while_new_ones_arrive_have_each_once() {
    const N: usize = 57;
    let app = App::new().await;
    let mut newest_first = Vec::new();
    for n in 0..N {
        // Many in one millisecond, too: the id decides.
        if n % 5 == 0 {
            app.advance(1);
        }
        newest_first.insert(0, app.post("/v1/messages", email(&format!("{n}@b.kr"))).await.expect(202).id());
    }
    for limit in [1, 7, 56, 57, 58, 200] {
        let all =
            walk(&app, &format!("/v1/messages?limit={limit}&until=2027-03-05T01:00:00Z"), "messageId", async || ())
                .await;
        assert_eq!(all, newest_first, "limit {limit}");
    }
    app.advance(7200);
    let mut more = 0;
    let all = walk(&app, "/v1/messages?limit=10", "messageId", async || {
        more += 1;
        app.post("/v1/messages", email("late@b.kr")).await.expect(202);
    });
    assert_eq!(all.await, newest_first, "what arrives behind us is not on our way");
    assert_eq!(more, 5);
    let again = walk(&app, "/v1/messages?limit=10", "messageId", async || ()).await;
    assert_eq!(
        (again.len(), again.iter().collect::<BTreeSet<_>>().len(), &again[5..]),
        (N + 5, N + 5, newest_first.as_slice())
    );
    app.done().await;
}

/// S3-18: pages of what a filter lets through, the computed status among them, are as complete.
#[tokio::test]
async fn message_pages_with_a_filter_are_complete() {
    let app = App::new().await;
    let one = |n: usize| {
        let to = if n.is_multiple_of(3) { "bounce@b.kr".to_owned() } else { format!("{n}@b.kr") };
        with(email(&to), "clientMsgId", json!(n.to_string()))
    };
    let all: Vec<Value> = (0..450).map(one).collect();
    app.post("/v1/messages/batch", json!({"messages": all})).await.expect(202);
    app.work().await;
    app.post("/v1/messages", email("pending@b.kr")).await.expect(202);
    let numbers =
        |wanted: &dyn Fn(&usize) -> bool| (0..450).rev().filter(wanted).map(|n| n.to_string()).collect::<Vec<_>>();
    for limit in [7, 150, 200] {
        let failed = walk(&app, &format!("/v1/messages?status=FAILED&limit={limit}"), "clientMsgId", async || ()).await;
        assert_eq!(failed, numbers(&|n| n % 3 == 0), "limit {limit}");
        let sent =
            walk(&app, &format!("/v1/messages?status=COMPLETED&limit={limit}"), "clientMsgId", async || ()).await;
        assert_eq!(sent, numbers(&|n| n % 3 != 0), "limit {limit}");
        let to = walk(&app, &format!("/v1/messages?to=bounce@b.kr&limit={limit}"), "clientMsgId", async || ()).await;
        assert_eq!(to, failed, "limit {limit}");
    }
    assert_eq!(walk(&app, "/notifications?status=FAILED&limit=40", "id", async || ()).await.len(), 150);
    let deliveries = walk(&app, "/v1/deliveries?status=FAILED&limit=40", "deliveryId", async || ()).await;
    assert_eq!((deliveries.len(), deliveries.iter().collect::<BTreeSet<_>>().len()), (150, 150));
    app.done().await;
}

/// Pages of deliveries may end within a message.
#[tokio::test]
async fn delivery_page_may_end_within_a_message() {
    let app = App::new().await;
    let mut wanted = Vec::new();
    for n in 0..4 {
        let to: Vec<String> = (0..25).map(|m| format!("{n}-{m}@b.kr")).collect();
        wanted.insert(0, to.clone());
        app.post("/v1/messages", with(email("x@b.kr"), "channels", json!([{"channel": "EMAIL", "to": to}])))
            .await
            .expect(202);
    }
    let wanted: Vec<String> = wanted.concat();
    for limit in [1, 9, 25, 99, 100] {
        assert_eq!(
            walk(&app, &format!("/v1/deliveries?limit={limit}"), "to", async || ()).await,
            wanted,
            "limit {limit}"
        );
    }
    app.done().await;
}

/// A page has fifty unless asked otherwise, and two hundred at most.
#[tokio::test]
async fn page_size_is_fifty_and_two_hundred_at_most() {
    let app = App::new().await;
    app.post("/v1/messages/batch", json!({"messages": vec![email("kim@b.kr"); 201]})).await.expect(202);
    for path in ["/v1/messages", "/v1/deliveries", "/notifications"] {
        assert_eq!(list(&app, path).await.len(), 50, "{path}");
        for limit in [1, 200] {
            assert_eq!(list(&app, &format!("{path}?limit={limit}")).await.len(), limit, "{path}");
        }
        for limit in ["0", "201", "-1", "x"] {
            app.get(&format!("{path}?limit={limit}")).await.refused(400, "query_invalid");
        }
    }
    app.done().await;
}

/// E9: an address in other letters is the same recipient: one mail, at the address as it was written first, and the
/// same request; it is found in any letters. User keys and names of Slack destinations are case-sensitive.
#[tokio::test]
async fn mailbox_in_any_case_is_one_recipient() {
    let app = App::with(&["--mock=NAVER_TALK"]).await;
    let body = |to: Value| {
        json!({"type": "A", "title": "t", "body": "b", "clientMsgId": "k", "recipients": [{"email": "KIM@example.com"}],
            "channels": [{"channel": "EMAIL", "to": to}, {"channel": "EMAIL"}, {"channel": "EMAIL",
                "to": "lee@example.com",
            "fallback": [{"channel": "SLACK", "to": "ops"}]}]})
    };
    let first = app.post("/v1/messages", body(json!(["Kim@example.com", "kim@EXAMPLE.COM", "kim@Example.com"]))).await;
    let first = first.expect(202);
    let to: Vec<&Value> = first.body["deliveries"].as_array().unwrap().iter().map(|d| &d["to"]).collect();
    assert_eq!(to, ["Kim@example.com", "lee@example.com"]);
    let again = app.post("/v1/messages", body(json!("kim@example.com"))).await.expect(200);
    assert_eq!(again.id(), first.id());
    app.post("/v1/messages", body(json!("kim2@example.com"))).await.refused(409, "idempotency_key_reused");
    app.work().await;
    let mails: Vec<String> = app.smtp.records().into_iter().map(|mail| mail.to[0].clone()).collect();
    assert_eq!(
        mails.iter().filter(|to| to.eq_ignore_ascii_case("kim@example.com")).collect::<Vec<_>>(),
        ["Kim@example.com"]
    );
    for path in ["/v1/messages?to", "/v1/deliveries?to", "/notifications?recipient"] {
        for to in ["Kim@example.com", "kim@example.com", "KIM@EXAMPLE.COM"] {
            assert_eq!(list(&app, &format!("{path}={to}")).await.len(), 1, "{path}={to}");
        }
        assert_eq!(list(&app, &format!("{path}=im@example.com")).await.len(), 0);
    }
    let keys = json!({"type": "A", "body": "b", "channels": [
        {"channel": "NAVER_TALK", "to": ["abc", "ABC", "abc"]}, {"channel": "SLACK", "to": "ops"}]});
    let keys = app.post("/v1/messages", keys).await.expect(202);
    assert_eq!(keys.body["deliveries"].as_array().unwrap().len(), 3);
    assert_eq!(list(&app, "/v1/deliveries?to=ABC").await.len(), 1);
    let mut slack = slack_post("x");
    slack["channels"][0]["to"] = json!("OPS");
    app.post("/v1/messages", slack).await.refused(422, "destination_unknown");
    app.done().await;
}

/// E14: a + in a query that was not escaped means itself wherever a blank cannot be meant: in addresses, numbers and
/// times, for partners and operators, whatever the partner's region.
#[tokio::test]
async fn query_with_an_unescaped_plus_is_found() {
    let app = App::with(&["--mock=SMS"]).await;
    let (_, _, abroad) = app.partner(PartnerChange { region: Some("US".into()), ..named_partner("abroad") }).await;
    let operator = app.staff(StaffRole::Operator).await;
    for to in ["kim+tag@example.com", "+lee@example.com"] {
        app.ask(&abroad, "POST", "/v1/messages", Some(email(to))).await.expect(202);
    }
    let text = json!({"type": "A", "body": "b", "channels": [{"channel": "SMS", "to": "+82 10-1234-5678"}]});
    app.ask(&abroad, "POST", "/v1/messages", Some(text)).await.expect(202);
    for to in [
        "kim+tag@example.com",
        "kim%2Btag@example.com",
        "Kim+Tag@Example.com",
        "+lee@example.com",
        "+821012345678",
        "+82+10-1234-5678",
        "%2B821012345678",
    ] {
        for path in ["/v1/messages?to", "/v1/deliveries?to", "/notifications?recipient"] {
            for who in [&abroad, &operator] {
                let path = format!("{path}={to}&since=2027-03-05T09:00:00+09:00");
                let found = app.ask(who, "GET", &path, None).await;
                if path.starts_with("/notifications") && *who == operator && found.status == 403 {
                    continue;
                }
                let found = found.expect(200);
                assert_eq!(found.body["items"].as_array().map(Vec::len), Some(1), "{path}: {}", found.text);
            }
        }
    }
    app.done().await;
}

/// A cursor is good for the list that gave it, as it was given, and for nothing else.
#[tokio::test]
async fn cursor_made_up_or_of_another_list_is_refused() {
    let app = App::new().await;
    for n in 0..3 {
        app.post("/v1/messages", changed(good(), "/channels/0/to", json!([format!("{n}@b.kr"), "x@b.kr"])))
            .await
            .expect(202);
    }
    let lists = ["/v1/messages", "/v1/deliveries", "/notifications"];
    for list in lists {
        let cursor =
            app.get(&format!("{list}?limit=1")).await.expect(200).body["nextCursor"].as_str().unwrap().to_owned();
        for other in lists {
            let answer = app.get(&format!("{other}?limit=1&cursor={cursor}")).await;
            if other == list { drop(answer.expect(200)) } else { drop(answer.refused(400, "cursor_invalid")) }
        }
        let bytes = data_encoding::BASE64URL_NOPAD.decode(cursor.as_bytes()).unwrap();
        for n in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[n] ^= 1;
            let forged = data_encoding::BASE64URL_NOPAD.encode(&forged);
            app.get(&format!("{list}?cursor={forged}")).await.refused(400, "cursor_invalid");
        }
        for bad in [&cursor[..cursor.len() - 1], &format!("{cursor}A"), &format!("{cursor}="), &cursor.to_lowercase()] {
            app.get(&format!("{list}?cursor={bad}")).await.refused(400, "cursor_invalid");
        }
    }
    app.done().await;
}

/// A search is for what it says, letter by letter: there are no wildcards, and no quotes to escape from.
#[tokio::test]
async fn search_is_literal() {
    let app = App::new().await;
    app.post("/v1/messages", changed(good(), "/clientMsgId", json!("a%_'\\"))).await.expect(202);
    let found = async |query: &str| {
        app.get(&format!("/v1/messages?{query}")).await.expect(200).body["items"].as_array().unwrap().len()
    };
    assert_eq!(found("clientMsgId=a%25_%27%5C").await, 1);
    for none in [
        "clientMsgId=a%25",
        "clientMsgId=a____",
        "clientMsgId=",
        "to=%25",
        "to=kim@example.com'--",
        "type=%25",
        "type=T%5C",
    ] {
        assert_eq!(found(none).await, 0, "{none}");
    }
    app.done().await;
}
