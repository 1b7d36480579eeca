//! Messages: accepted, delivered, looked at.

use notihub::flow::partner::PartnerChange;
use serde_json::{Value, json};

use crate::support::app::{Answer, App, email, named};

/// S0-2, S0-3, S3-2, S3-3, S3-8, S3-9, S3-37: a message is stored with its deliveries PENDING, and only a worker sends
/// it.
#[tokio::test]
async fn message_posted_is_stored_and_sent_by_a_worker() {
    let app = App::new().await;
    let mut body = email("kim@example.com");
    body["channels"] = json!([{"channel": "EMAIL", "to": "kim@example.com"}, {"channel": "SLACK", "to": "ops"}]);
    let accepted = app.post("/v1/messages", body).await.expect(202);
    assert_eq!(accepted.body["code"], "0000");
    let id = accepted.id();
    assert_eq!(accepted.header("location"), format!("/v1/messages/{id}"));
    let statuses: Vec<_> =
        accepted.body["deliveries"].as_array().unwrap().iter().map(|d| d["status"].clone()).collect();
    assert_eq!(statuses, ["PENDING", "PENDING"]);
    assert_eq!(app.message(&id).await["status"], "PENDING");
    assert!(app.smtp.records().is_empty(), "nothing is sent by the API");

    app.work().await;

    let message = app.message(&id).await;
    assert_eq!(message["status"], "COMPLETED");
    assert_eq!(message["deliveries"][0]["status"], "SENT");
    assert_eq!(message["deliveries"][0]["attempts"][0]["outcome"], "ACCEPTED");
    let mails = app.smtp.records();
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, ["kim@example.com"]);
    assert_eq!(app.slack.records().len(), 1);
    app.done().await;
}

/// One message to many, over several channels: a delivery for each, in the order they were named, each recipient once.
#[tokio::test]
async fn message_has_a_delivery_for_each_recipient_and_channel() {
    let app = App::new().await;
    let body = json!({"type": "A", "title": "t", "body": "all", "recipients": [{"email": "r1@b.kr"},
        {"email": "r2@b.kr"}],
    "channels": [
        {"channel": "EMAIL"},
        {"channel": "EMAIL", "to": ["x@b.kr", "y@b.kr", "x@b.kr"], "subject": "own", "body": "other"},
        {"channel": "SLACK", "to": ["ops", "dev"], "body": "slack"},
        {"channel": "SLACK", "to": "ops", "body": "slack"},
    ]});
    let accepted = app.post("/v1/messages", body).await.expect(202);
    let id = accepted.id();
    let shown: Vec<(&str, &str)> = accepted.body["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["deliveryId"].as_str().unwrap().rsplit('-').next().unwrap(), d["to"].as_str().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [("1", "r1@b.kr"), ("2", "r2@b.kr"), ("3", "x@b.kr"), ("4", "y@b.kr"), ("5", "ops"), ("6", "dev")]
    );
    app.work().await;
    let message = app.message(&id).await;
    assert_eq!((&message["status"], message["deliveries"].as_array().unwrap().len()), (&json!("COMPLETED"), 6));
    for mail in app.smtp.records() {
        let own = mail.to[0].starts_with(['x', 'y']);
        assert!(mail.data.contains(if own { "Subject: own\r\n" } else { "Subject: t\r\n" }), "{mail:?}");
        assert!(mail.data.contains(if own { "\r\n\r\nother" } else { "\r\n\r\nall" }), "{mail:?}");
    }
    let mut hooks: Vec<String> = app.slack.records().into_iter().map(|p| p.hook).collect();
    hooks.sort();
    assert_eq!((app.smtp.records().len(), hooks), (4, vec!["dev".to_owned(), "ops".to_owned()]));
    app.done().await;
}

/// A message is read back as it was posted, with its deliveries.
#[tokio::test]
async fn message_is_read_back_as_posted() {
    let app = App::new().await;
    let blocks = json!([{"type": "divider"}]);
    let body = json!({"clientMsgId": "order-1", "type": "ORDER", "priority": "BULK", "title": "Tïtle 제목",
        "body": "text\n둘째 줄",
        "scheduledAt": "2027-03-05T10:00:00.5+09:00", "expiresAt": "2027-03-06T00:00:00Z",
            "metadata": {"orderId": "1234", "n": 1.5},
        "channels": [{"channel": "EMAIL", "to": "kim@example.com", "html": "<b>x</b>"}, {"channel": "SLACK",
            "to": "ops", "blocks": blocks}]});
    let id = app.post("/v1/messages", body).await.expect(202).id();
    let shown = app.message(&id).await;
    let (mut head, told_deliveries) = (shown.clone(), shown["deliveries"].clone());
    head.as_object_mut().unwrap().remove("deliveries");
    assert_eq!(
        head,
        json!({
            "code": "0000", "possiblySent": false, "webhooks": [], "moreWebhooks": false, "messageId": id,
                "clientMsgId": "order-1", "type": "ORDER", "priority": "BULK", "title": "Tïtle 제목",
            "status": "PENDING", "createdAt": "2027-03-05T00:30:00.000000Z",
                "scheduledAt": "2027-03-05T01:00:00.500000Z",
            "expiresAt": "2027-03-06T00:00:00.000000Z", "metadata": {"orderId": "1234", "n": 1.5},
            "contents": [{"subject": "Tïtle 제목", "body": "text\n둘째 줄", "html": "<b>x</b>"},
                {"subject": "Tïtle 제목", "body": "text\n둘째 줄", "blocks": [{"type": "divider"}]}],
        })
    );
    assert_eq!(
        told_deliveries[1],
        json!({
            "deliveryId": format!("{id}-2"), "messageId": id, "channel": "SLACK", "to": "ops", "recipient": "ops",
                "status": "SCHEDULED", "reason": null,
            "attempt": 0, "maxAttempts": 3, "provider": null, "possiblySent": false, "cancelRequested": false,
            "nextAt": "2027-03-05T01:00:00.500000Z", "settledAt": null, "attempts": [],
            "fallbackOf": null, "receipt": null, "awaitingReceiptUntil": null,
        })
    );
    app.advance(1801);
    app.work().await;
    let sent = app.get(&format!("/v1/deliveries/{id}-1")).await.expect(200).body;
    let attempt = &sent["attempts"][0];
    assert_eq!(
        (&sent["status"], &sent["provider"], &sent["settledAt"]),
        (&json!("SENT"), &json!("smtp"), &json!("2027-03-05T01:00:01.000000Z"))
    );
    for (name, value) in [
        ("attempt", json!(1)),
        ("outcome", json!("ACCEPTED")),
        ("late", json!(false)),
        ("nextAt", Value::Null),
        ("calledAt", json!("2027-03-05T01:00:01.000000Z")),
        ("endedAt", json!("2027-03-05T01:00:01.000000Z")),
        ("errorCode", Value::Null),
    ] {
        assert_eq!(attempt[name], value, "{name}");
    }
    assert_eq!(attempt["worker"].as_str().map(str::len), Some(13));
    app.done().await;
}

/// A dry run says what would happen, or what is wrong, and writes nothing.
#[tokio::test]
async fn message_dry_run_writes_nothing() {
    let app = App::new().await;
    let mut body = email("kim@example.com");
    body["clientMsgId"] = json!("k");
    body["channels"][0]["html"] = json!("<b>가</b>");
    let shown = app.post("/v1/messages?dryRun=true", body.clone()).await.expect(200).body;
    assert_eq!(
        shown,
        json!({"code": "0000", "dryRun": true, "clientMsgId": "k", "deliveries": [
            {"channel": "EMAIL", "to": "kim@example.com", "recipient": "kim@example.com", "status": "PENDING",
                "content": 0}],
            "contents": [{"parts": 1, "bytes": 24, "subject": "Hello", "body": "It works.", "lengths": []}]})
    );
    app.post("/v1/messages?dryRun=true", email("nobody")).await.refused(422, "recipient_invalid");
    assert_eq!(app.count("select count(*) from messages").await, 0);
    assert_eq!(app.work().await, 0);
    app.post("/v1/messages?dryRun=false", body).await.expect(202);
    app.done().await;
}

/// A mail with text and HTML carries both; a subject cannot become a header of its own, nor a body end the mail early.
#[tokio::test]
async fn message_mail_has_its_text_and_nothing_else() {
    let app = App::new().await;
    let body = json!({"type": "A", "body": "first\n.\nQUIT\r\n.\r\nMAIL FROM:<x@y.kr>\n..last", "channels": [
        {"channel": "EMAIL", "to": "kim@example.com", "subject": "안녕하세요 =?utf-8?q?x?=", "html": "<p>안녕</p>"}]});
    app.post("/v1/messages", body).await.expect(202);
    let injected = json!({"type": "A", "title": "x\r\nBcc: spy@example.com", "body": "b",
        "channels": [{"channel": "EMAIL", "to": "kim@example.com"}]});
    app.post("/v1/messages", injected).await.refused(422, "control_character");
    app.work().await;
    let mails = app.smtp.records();
    assert_eq!(mails.len(), 1, "one mail, however its body looks");
    let data = &mails[0].data;
    assert!(
        data.contains("multipart/alternative") && data.contains("text/plain") && data.contains("text/html"),
        "{data}"
    );
    assert!(data.is_ascii() && data.contains("Auto-Submitted: auto-generated\r\n"), "{data}");
    assert!(data.contains("\r\nSubject: =?utf-8?"), "{data}");
    assert!(!data.to_lowercase().contains("\r\nbcc:"), "{data}");
    app.done().await;
}

/// A batch is many messages in one request, each with its own answer.
#[tokio::test]
async fn message_batch_has_an_answer_for_each() {
    let app = App::new().await;
    let all: Vec<Value> = (0..250).map(|n| email(&format!("{n}@example.com"))).collect();
    let answer = app.post("/v1/messages/batch", json!({"messages": all})).await.expect(202);
    let items = answer.body["messages"].as_array().unwrap();
    assert_eq!(
        (items.len(), &items[7]["deliveries"][0]["to"], &items[7]["replayed"]),
        (250, &json!("7@example.com"), &json!(false))
    );
    assert!(items.is_sorted_by_key(|m| m["messageId"].as_str().unwrap()), "ids rise in the order of the batch");
    assert_eq!(app.work().await, 250);
    assert_eq!(app.smtp.records().len(), 250);
    app.done().await;
}

/// Requests that come at the same time are written in few commits, and each has its own answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn messages_at_the_same_moment_have_their_own_answers() {
    let app = App::new().await;
    let answers = (0..200).map(|n| app.post("/v1/messages", email(&format!("{n}@example.com"))));
    let answers = futures_util::future::join_all(answers).await;
    for (n, answer) in answers.into_iter().enumerate() {
        let answer = answer.expect(202);
        assert_eq!(answer.body["deliveries"][0]["to"], format!("{n}@example.com"));
        assert_eq!(app.message(&answer.id()).await["deliveries"][0]["to"], format!("{n}@example.com"));
    }
    let groups = app.hub.metrics.intake_group.with_label_values::<&str>(&[]);
    assert_eq!(
        (groups.get_sample_sum(), groups.get_sample_count() < 200),
        (200.0, true),
        "{} commits",
        groups.get_sample_count()
    );
    app.done().await;
}

/// F3: numbers in data come back as they were posted, to the last digit, and are compared so; texts in data stay as
/// they are. Also where the content is sealed, in what a partner's endpoint gets, and in what goes out to Slack.
#[tokio::test]
async fn message_data_is_read_back_as_posted() {
    let app = App::new().await;
    let (_, _, sealed) = app.partner(PartnerChange { encrypt_content: Some(true), ..named("sealed") }).await;
    let numbers = [
        "0",
        "-0",
        "0.0",
        "-0.0",
        "1",
        "1.0",
        "1.10",
        "1e2",
        "-1.50e-7",
        "1e308",
        "5e-324",
        "9007199254740993",
        "18446744073709551616",
        "12345678901234567890123",
        "0.1000000000000000055",
        "-123456789012345678901234567890.0123456789",
    ];
    let http = reqwest::Client::new();
    let post = async |token: &str, key: &str, number: &str| {
        let body = format!(
            r#"{{"type": "A", "clientMsgId": "{key}", "body": "b", "metadata": {{"n": {number}, "t":
                "\u1112\u1161\\u0000\ud83d\ude00\u2028"}},
                "channels": [{{"channel": "SLACK", "to": "ops", "blocks": [{{"type": "x", "n": {number}}}]}}]}}"#
        );
        let request = http.post(app.uri("/v1/messages")).bearer_auth(token).header("content-type", "application/json");
        Answer::read(request.body(body)).await
    };
    let token = app.fresh_token().await;
    let mut ids = std::collections::BTreeSet::new();
    for token in [&token, &sealed] {
        for key in numbers {
            let id = post(token, key, key).await.expect(202).id();
            let shown = app.ask(token, "GET", &format!("/v1/messages/{id}"), None).await.expect(200);
            // The answer writes the sign of an exponent.
            let number = &key.replace("e2", "e+2").replace("e308", "e+308");
            let metadata = format!(r#""n":{number},"t":"ᄒ"#);
            assert!(shown.text.contains(&metadata), "{number}: {}", shown.text);
            assert!(shown.text.contains(&format!(r#"[{{"n":{number},"type":"x"}}]"#)), "{number}: {}", shown.text);
            assert_eq!(shown.body["metadata"]["t"], "\u{1112}\u{1161}\\u0000\u{1f600}\u{2028}");
            assert_eq!(post(token, key, key).await.expect(200).id(), id);
            ids.insert(id);
        }
    }
    assert_eq!(ids.len(), 2 * numbers.len());
    for (key, other) in [
        ("1", "1.0"),
        ("0", "-0"),
        ("1e2", "100"),
        ("0.1000000000000000055", "0.1"),
        ("9007199254740993", "9007199254740992"),
        ("12345678901234567890123", "12345678901234567890124"),
    ] {
        post(&token, key, other).await.refused(409, "idempotency_key_reused");
    }
    for number in ["1e400", "-1e400", "1e-400"] {
        post(&token, "far", number).await.refused(400, "number_range");
    }
    app.work().await;
    assert_eq!(app.slack.records().len(), 2 * numbers.len());
    app.done().await;
}

/// A process that has written a partner's messages without webhooks writes webhooks from the first message on that
/// follows the creation of an endpoint, alone and in a batch, although nothing in its memory says that there is one;
/// and none when the endpoint is gone.
#[tokio::test]
async fn message_posted_after_an_endpoint_was_created_has_its_webhook() {
    let app = App::new().await;
    let batch = || json!({"messages": [email("lee@example.com"), email("park@example.com")]});
    let webhooks = "select count(*) from deliveries where lane between 66 and 71";
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.post("/v1/messages/batch", batch()).await.expect(202);
    assert_eq!(app.count(webhooks).await, 0);
    let hook = json!({"url": "https://hooks.example.com/x", "events": ["message.accepted"]});
    let created = app.post("/v1/webhooks", hook).await.expect(201);
    // The creation leaves no trace in what intake remembers: the statement itself finds the endpoint.
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    assert_eq!(app.count(webhooks).await, 1);
    app.post("/v1/messages/batch", batch()).await.expect(202);
    assert_eq!(app.count(webhooks).await, 3);
    let endpoint = created.body["endpointId"].as_str().unwrap();
    app.ask(&app.fresh_token().await, "DELETE", &format!("/v1/webhooks/{endpoint}"), None).await.expect(204);
    for _ in 0..2 {
        app.post("/v1/messages", email("kim@example.com")).await.expect(202);
        app.advance(61);
    }
    assert_eq!(app.count(webhooks).await, 3);
    app.settle_all().await;
    app.done().await;
}

/// A message is written the same whether its partner has endpoints or not: both statements write the same rows.
#[tokio::test]
async fn message_of_a_partner_with_endpoints_is_stored_as_one_without() {
    let app = App::new().await;
    let stored = async |key: &str| -> Value {
        let at = app.hub.clock.now() + chrono::TimeDelta::minutes(10);
        let body = json!({"type": "A", "clientMsgId": key, "priority": "URGENT", "title": "t", "body": "b",
            "scheduledAt": at, "expiresAt": at + chrono::TimeDelta::minutes(10), "metadata": {"n": 1},
            "channels": [{"channel": "EMAIL", "to": ["Kim@Example.com", "lee@example.com"]},
                {"channel": "SLACK", "to": "ops", "fallback": [{"channel": "EMAIL", "to": "kim@example.com"}]}]});
        let accepted = app.post("/v1/messages", body.clone()).await.expect(202);
        let id: notihub::id::Tsid = accepted.id().parse().unwrap();
        assert_eq!(app.post("/v1/messages", body).await.expect(200).id(), accepted.id(), "the key is taken");
        let rows = "select json_build_object('message', (select to_jsonb(m) from messages m where message_id = $1), \
             'deliveries', (select jsonb_agg(to_jsonb(d) order by no) from deliveries d where message_id = $1), \
             'key', (select to_jsonb(i) from idempotency i where message_id = $1))::text";
        let text: String = sqlx::query_scalar(rows).bind(id.0).fetch_one(&app.db().await).await.unwrap();
        serde_json::from_str(&text.replace(&id.0.to_string(), "0").replace(key, "key")).unwrap()
    };
    let mut plain = stored("order-a").await;
    assert_eq!(plain["deliveries"].as_array().unwrap().len(), 3);
    let hook = json!({"url": "https://hooks.example.com/x", "events": ["delivery.failed"]});
    app.post("/v1/webhooks", hook).await.expect(201);
    let mut full = stored("order-b").await;
    // The fingerprint is of the message with its key.
    for rows in [&mut plain, &mut full] {
        assert!(rows["key"].as_object_mut().unwrap().remove("fingerprint").is_some());
    }
    assert_eq!(plain, full);
    app.settle_all().await;
    app.done().await;
}
