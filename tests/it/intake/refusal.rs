//! Requests that are refused: each fault has its answer, and nothing of the request is stored.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::intake::{JSON, changed, good};
use crate::support::app::App;
use crate::support::wire::{Reply, Wire, request};

/// A request, and what must be said of it.
struct Row {
    name: String,
    bytes: Vec<u8>,
    status: u16,
    reason: &'static str,
    /// Of the first fault; empty where the request as a whole is at fault.
    pointer: String,
}

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn raw(&mut self, name: &str, bytes: Vec<u8>, status: u16, reason: &'static str, pointer: &str) {
        self.0.push(Row { name: name.to_owned(), bytes, status, reason, pointer: pointer.to_owned() });
    }

    fn bytes(&mut self, name: &str, body: &[u8], status: u16, reason: &'static str, pointer: &str) {
        self.raw(name, request("POST", "/v1/messages", &[JSON], body), status, reason, pointer);
    }

    fn body(&mut self, name: &str, body: &Value, status: u16, reason: &'static str, pointer: &str) {
        self.bytes(name, body.to_string().as_bytes(), status, reason, pointer);
    }

    /// A message that is right but for this.
    fn but(&mut self, path: &str, value: Value, reason: &'static str, pointer: &str) {
        let name = format!("{path} = {:.60}", value.to_string());
        self.body(&name, &changed(good(), path, value), 422, reason, pointer);
    }

    /// The same, told as an unknown type or channel.
    fn but_e005(&mut self, path: &str, value: Value, reason: &'static str, pointer: &str) {
        self.but(path, value, reason, pointer);
        self.0.last_mut().expect("just added").status = 400;
    }

    fn get(&mut self, path: &str, status: u16, reason: &'static str) {
        self.raw(&format!("GET {path:.100}"), request("GET", path, &[], b""), status, reason, "");
    }

    fn post_to(&mut self, path: &str, body: &Value, status: u16, reason: &'static str, pointer: &str) {
        let name = format!("POST {path:.60} {:.100}", body.to_string());
        self.raw(&name, request("POST", path, &[JSON], body.to_string().as_bytes()), status, reason, pointer);
    }

    fn with_headers(&mut self, headers: &[(&str, &str)], status: u16, reason: &'static str, pointer: &str) {
        let bytes = request("POST", "/v1/messages", headers, good().to_string().as_bytes());
        self.raw(&format!("{headers:?}"), bytes, status, reason, pointer);
    }
}

fn without(mut body: Value, path: &str) -> Value {
    let (parent, last) = path.rsplit_once('/').expect("a pointer");
    let fields = body.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    assert!(fields.remove(last).is_some(), "{path} was not there");
    body
}

fn batch(n: usize) -> Value {
    json!({"messages": vec![good(); n]})
}

/// What cannot be read as one JSON document in UTF-8.
fn unreadable(table: &mut Table) {
    let text = good().to_string();
    table.bytes("nothing", b"", 400, "body_empty", "");
    table.bytes("white space", b" \r\n\t ", 400, "body_empty", "");
    for cut in [1, 10, text.len() - 1] {
        table.bytes("truncated", &text.as_bytes()[..cut], 400, "json_syntax", "");
    }
    table.bytes("two documents", format!("{text}{text}").as_bytes(), 400, "json_trailing", "");
    table.bytes("NDJSON", format!("{text}\n{text}\n").as_bytes(), 400, "json_trailing", "");
    table.bytes("a comma behind", format!("{text},").as_bytes(), 400, "json_trailing", "");
    for bad in
        ["{'type': 'A'}", "{type: 1}", "{\"a\":1,}", "// c\n{}", "{\"a\": NaN}", "{\"a\": Infinity}", "{\"a\": 01}"]
    {
        table.bytes(bad, bad.as_bytes(), 400, "json_syntax", "");
    }
    for bad in ["{\"a\": .5}", "{\"a\": +1}", "{\"a\": 0x10}", "{\"a\": tru}", "{\"a\": \"\\x\"}", "\u{1}{}", "<xml/>"]
    {
        table.bytes(bad, bad.as_bytes(), 400, "json_syntax", "");
    }
    for number in ["1e400", "-1e400", &"9".repeat(400), "1e-400", "-0.00001e-99999999999999999999"] {
        let body = format!("{{\"metadata\": {{\"a\": {number}}}}}");
        table.bytes(&body, body.as_bytes(), 400, "number_range", "");
    }
    table.bytes("lone surrogate", &replaced(&text, "\\ud800"), 400, "json_syntax", "");
    table.bytes("surrogates the wrong way", &replaced(&text, "\\udc00\\ud800"), 400, "json_syntax", "");
    for raw in [&b"\x01"[..], b"\x1f", b"\n", b"\t", b"\0"] {
        table.bytes("a raw control character", &replaced_bytes(&text, raw), 400, "json_syntax", "");
    }
    for raw in
        [&b"\xc3\x28"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xed\xa0\xbd\xed\xb8\x80", b"\xff", b"\xf4\x90\x80\x80"]
    {
        table.bytes("not UTF-8", &replaced_bytes(&text, raw), 400, "encoding_not_utf8", "");
    }
    let units: Vec<u16> = text.encode_utf16().collect();
    let little: Vec<u8> = units.iter().flat_map(|u| u.to_le_bytes()).collect();
    let big: Vec<u8> = units.iter().flat_map(|u| u.to_be_bytes()).collect();
    let wide: Vec<u8> = text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    for (name, bytes) in [("UTF-16LE", &little), ("UTF-16BE", &big), ("UTF-32LE", &wide)] {
        table.bytes(name, bytes, 400, "encoding_not_utf8", "");
    }
    table.bytes("UTF-16LE, marked", &[b"\xff\xfe", little.as_slice()].concat(), 400, "encoding_not_utf8", "");
    table.bytes("UTF-16BE, marked", &[b"\xfe\xff", big.as_slice()].concat(), 400, "encoding_not_utf8", "");
    table.bytes("UTF-8, marked", format!("\u{feff}{text}").as_bytes(), 400, "encoding_not_utf8", "");
    for (depth, open) in [(200, "["), (100_000, "["), (100_000, "{\"a\":")] {
        let body = format!("{{\"type\": {}", open.repeat(depth));
        table.bytes("too deep", body.as_bytes(), 400, "json_too_deep", "");
    }
    let many = format!("{{\"metadata\": {{\"a\": [{}1]}}}}", "1,".repeat(300_000));
    table.bytes("300,001 items", many.as_bytes(), 422, "too_many_items", "");
    let keys: Vec<String> = (0..100_001).map(|n| format!("\"{n}\":1")).collect();
    let keys =
        changed(good(), "/metadata", json!("KEYS")).to_string().replace("\"KEYS\"", &format!("{{{}}}", keys.join(",")));
    table.bytes("100,001 keys", keys.as_bytes(), 422, "metadata_invalid", "/metadata");
}

/// The message's title, written as this.
fn replaced(text: &str, title: &str) -> Vec<u8> {
    replaced_bytes(text, title.as_bytes())
}

fn replaced_bytes(text: &str, title: &[u8]) -> Vec<u8> {
    let (before, after) = text.split_once("Hello").expect("the title");
    [before.as_bytes(), title, after.as_bytes()].concat()
}

/// What can be read, and has another shape than a message.
fn misshapen(table: &mut Table) {
    for top in [json!([]), json!([good()]), json!("text"), json!(1), json!(true), json!(null)] {
        table.body(&format!("{:.40}", top.to_string()), &top, 422, "type_mismatch", "");
    }
    for (key, pointer) in [
        ("\"type\":\"A\",", "/type"),
        ("\"title\":\"x\",", "/title"),
        ("\"metadata\":null,\"metadata\":{},", "/metadata"),
    ] {
        let twice = good().to_string().replacen('{', &format!("{{{key}"), 1);
        table.bytes(&format!("twice {key}"), twice.as_bytes(), 422, "duplicate_key", pointer);
    }
    let twice = good().to_string().replace("\"to\":", "\"to\":\"lee@example.com\",\"to\":");
    table.bytes("to twice", twice.as_bytes(), 422, "duplicate_key", "/channels/0/to");
    let twice = changed(good(), "/metadata", json!({"k": 1})).to_string().replace("\"k\":1", "\"k\":1,\"\\u006b\":2");
    table.bytes("twice, once escaped", twice.as_bytes(), 422, "duplicate_key", "/metadata/k");

    for name in ["Title", "TYPE", "ti\u{301}tle", "__proto__", "constructor", "x", "", "status", "message"] {
        table.but(&format!("/{name}"), json!("x"), "unknown_field", &format!("/{name}"));
    }
    let slashed = good().to_string().replacen('{', "{\"a/b~c\":1,", 1);
    table.bytes("a/b~c", slashed.as_bytes(), 422, "unknown_field", "/a~1b~0c");
    table.but("/channels/0/Body", json!("x"), "unknown_field", "/channels/0/Body");
    table.but("/channels/0/blocks", json!([]), "unknown_field", "/channels/0/blocks");
    table.but("/channels/0/priority", json!("URGENT"), "unknown_field", "/channels/0/priority");
    let slack = json!({"type": "A", "body": "b", "channels": [{"channel": "SLACK", "to": "ops", "html": "<b>"}]});
    table.body("html for Slack", &slack, 422, "unknown_field", "/channels/0/html");

    for name in ["type", "channels"] {
        table.body(&format!("no {name}"), &without(good(), &format!("/{name}")), 422, "required", &format!("/{name}"));
        table.but(&format!("/{name}"), Value::Null, "null_not_allowed", &format!("/{name}"));
    }
    table.body("no channel", &without(good(), "/channels/0/channel"), 422, "required", "/channels/0/channel");
    table.but("/channels/0/channel", Value::Null, "null_not_allowed", "/channels/0/channel");
    table.body("no to", &without(good(), "/channels/0/to"), 422, "required", "/channels/0/to");
    for nobody in [Value::Null, json!([])] {
        table.but("/channels/0/to", nobody, "required", "/channels/0/to");
    }
    table.body("no body", &without(good(), "/body"), 422, "required", "/channels/0/body");
    table.body("no subject", &without(good(), "/title"), 422, "required", "/channels/0/subject");
    table.but("/channels", json!([]), "empty", "/channels");

    for wrong in [json!(1), json!(1.5), json!(true), json!([]), json!({})] {
        for name in ["type", "title", "body", "clientMsgId", "priority"] {
            table.but(&format!("/{name}"), wrong.clone(), "type_mismatch", &format!("/{name}"));
        }
    }
    for name in ["channels", "metadata", "recipients"] {
        table.but(&format!("/{name}"), json!("text"), "type_mismatch", &format!("/{name}"));
        table.but(&format!("/{name}"), json!(1), "type_mismatch", &format!("/{name}"));
    }
    for item in [json!("EMAIL"), json!(null), json!([]), json!(1)] {
        table.but("/channels/0", item, "type_mismatch", "/channels/0");
    }
    for (to, pointer) in
        [(json!(1), "/channels/0/to"), (json!({}), "/channels/0/to"), (json!(["a@b.kr", 1]), "/channels/0/to/1")]
    {
        table.but("/channels/0/to", to, "type_mismatch", pointer);
    }
    for name in ["type", "title", "clientMsgId", "priority", "channels/0/to", "channels/0/subject", "channels/0/html"] {
        for blank in ["", " ", "\u{3000}\u{a0}"] {
            table.but(&format!("/{name}"), json!(blank), "empty", &format!("/{name}"));
        }
    }
    for name in ["Number", "RawValue"] {
        let field = format!("$serde_json::private::{name}");
        let pointer = format!("/metadata/{field}");
        let body = format!(r#"{{"metadata": {{"{field}": "1"}}}}"#);
        table.bytes(&body, body.as_bytes(), 422, "unknown_field", &pointer);
        let body = body.replace('$', "\\u0024").replace("\"1\"", "1");
        table.bytes(&body, body.as_bytes(), 422, "unknown_field", &pointer);
    }
    table.but("/fallback", json!("x"), "not_supported", "/fallback");
    for name in ["template", "locale", "variables"] {
        table.but(&format!("/{name}"), json!("x"), "not_supported", &format!("/{name}"));
        table.but(&format!("/channels/0/{name}"), json!([1]), "not_supported", &format!("/channels/0/{name}"));
    }
    table.but("/channels/0/templateCode", json!("T1"), "unknown_field", "/channels/0/templateCode");
    table.but("/recipients", json!([{"email": "a@b.kr", "variables": {}}]), "not_supported", "/recipients/0/variables");
    table.but("/recipients", json!([{"mail": "a@b.kr"}]), "unknown_field", "/recipients/0/mail");
    table.but("/recipients", json!(["a@b.kr"]), "type_mismatch", "/recipients/0");

    let slack = |blocks: Value| {
        json!({"type": "A", "body": "b", "channels": [{"channel": "SLACK", "to": "ops",
        "blocks": blocks}]})
    };
    let at = "/channels/0/blocks";
    table.body("51 blocks", &slack(json!(vec![json!({"type": "divider"}); 51])), 422, "too_many_items", at);
    table.body("blocks as text", &slack(json!("x")), 422, "type_mismatch", at);
    for block in [json!(1), json!({}), json!({"type": 1}), json!(null)] {
        table.body(
            "a block",
            &slack(json!([{"type": "divider"}, block])),
            422,
            "blocks_invalid",
            "/channels/0/blocks/1",
        );
    }
    let nul = slack(json!([{"type": "section", "text": {"text": "a\0b"}}]));
    table.body("NUL in a block", &nul, 422, "control_character", "/channels/0/blocks/0/text/text");
}

/// Characters that do not belong where they are, and texts that are too long.
fn wrong_texts(table: &mut Table) {
    let lines =
        ["type", "title", "clientMsgId", "channels/0/to", "channels/0/subject", "channels/0/channel", "priority"];
    for name in lines {
        let at = format!("/{name}");
        for bad in ["a\u{1}b", "a\nb", "a\r\nBcc: x@y.kr", "a\tb", "a\u{7f}b", "a\u{85}b", "a\u{2028}b", "a\u{2029}"] {
            table.but(&at, json!(bad), "control_character", &at);
        }
        for bad in ["a\u{202e}b", "a\u{2066}b", "a\u{e0041}"] {
            table.but(&at, json!(bad), "unsafe_character", &at);
        }
    }
    for name in ["body", "title", "channels/0/html", "channels/0/body", "metadata"] {
        let value = if name == "metadata" { json!({"k": "a\0b"}) } else { json!("a\0b") };
        let at = if name == "metadata" { "/metadata/k".to_owned() } else { format!("/{name}") };
        table.but(&format!("/{name}"), value, "control_character", &at);
    }
    table.but("/metadata", json!({"a\0b": 1}), "control_character", "/metadata/ab");

    let long = |n: usize| json!("가".repeat(n));
    for (name, chars) in [("title", 250), ("type", 64), ("clientMsgId", 128), ("channels/0/subject", 250)] {
        let at = format!("/{name}");
        table.but(&at, long(chars + 1), "content_too_long", &at);
    }
    table.but("/body", json!("x".repeat((64 << 10) + 1)), "content_too_long", "/body");
    table.but("/channels/0/body", json!("x".repeat((64 << 10) + 1)), "content_too_long", "/channels/0/body");
    table.but("/channels/0/html", json!("x".repeat((256 << 10) + 1)), "content_too_long", "/channels/0/html");
    table.but(
        "/channels/0/to",
        json!(format!("{}@example.com", "x".repeat(243))),
        "content_too_long",
        "/channels/0/to",
    );
    let slack = json!({"type": "A", "body": "x".repeat(40_001), "channels": [{"channel": "SLACK", "to": "ops"}]});
    table.body("Slack's limit", &slack, 422, "content_too_long", "/channels/0/body");
}

/// Words out of a closed list, addresses, times, and metadata.
fn wrong_values(table: &mut Table) {
    for word in ["FAX", "email", "Email", "EMAIL ", "E-MAIL"] {
        table.but_e005("/channels/0/channel", json!(word), "enum", "/channels/0/channel");
    }
    for word in ["SMS", "KAKAO_ALIMTALK", "PUSH", "WEBHOOK"] {
        table.but_e005("/channels/0/channel", json!(word), "channel_unavailable", "/channels/0/channel");
    }
    for kind in ["ORDER COMPLETED", "a/b", "주문", "<b>", "a;drop table messages", "{{7*7}}", "a\u{200b}b"] {
        table.but_e005("/type", json!(kind), "type_invalid", "/type");
    }
    for word in ["urgent", "Urgent", "HIGH", "0", "URGENT,BULK"] {
        table.but("/priority", json!(word), "enum", "/priority");
    }

    let local = "x".repeat(65);
    let label = "x".repeat(64);
    for address in [
        "kim",
        "kim@",
        "@example.com",
        "@",
        "a@b@example.com",
        "kim@example",
        "kim@example.com.",
        "kim@.example.com",
        "kim @example.com",
        " kim@example.com",
        "kim@example.com ",
        "kim@ example.com",
        "Kim <kim@example.com>",
        "<kim@example.com>",
        "\"kim lee\"@example.com",
        "\"kim\"@example.com",
        "kim@[127.0.0.1]",
        "kim@127.0.0.1",
        "kim@[IPv6:::1]",
        "kim@exam_ple.com",
        "kim@-example.com",
        "kim@example-.com",
        "kim@ex..com",
        ".kim@example.com",
        "kim.@example.com",
        "ki..m@example.com",
        "김@example.com",
        "kim@예시.kr",
        "kim@example.com,lee@example.com",
        "kim@example.com;lee@example.com",
        "mailto:kim@example.com",
        "kim(comment)@example.com",
        "kim@example.com>",
        "kim@example.com/x",
        "kim\\@example.com",
        &format!("{local}@example.com"),
        &format!("kim@{label}.com"),
        "kim@xn--.kr",
        "kim@example.com\u{200b}",
    ] {
        table.but("/channels/0/to", json!(address), "recipient_invalid", "/channels/0/to");
    }
    table.but("/channels/0/to", json!(["a@b.kr", "nobody"]), "recipient_invalid", "/channels/0/to/1");
    let recipients =
        changed(without(good(), "/channels/0/to"), "/recipients", json!([{"email": "a@b.kr"}, {"email": "no"}]));
    table.body("a recipient's address", &recipients, 422, "recipient_invalid", "/recipients/1/email");
    for to in ["nowhere", "OPS", "https://hooks.slack.com/services/T0/B0/x", "#ops", "@kim", "ops,dev", "../ops"] {
        let slack = json!({"type": "A", "body": "b", "channels": [{"channel": "SLACK", "to": to}]});
        table.body(to, &slack, 422, "destination_unknown", "/channels/0/to");
    }
    let many: Vec<String> = (0..10_001).map(|n| format!("{n}@example.com")).collect();
    table.but("/channels/0/to", json!(many), "too_many_recipients", "/channels");

    for at in ["/scheduledAt", "/expiresAt"] {
        for time in [
            "tomorrow",
            "",
            "2027-03-06",
            "2027-03-06T10:00:00",
            "2027-03-06 10:00:00Z",
            "2027-02-30T10:00:00Z",
            "2027-03-06T24:00:00Z",
            "2027-03-06T10:60:00Z",
            "2027-03-06T10:00:60Z",
            "2027-03-06T10:00:00+99:99",
            "2027-03-06T10:00:00+0900",
            "2027-03-06T10:00Z",
            "20270306T100000Z",
            "2027-W10-6T10:00:00Z",
            "294278-01-01T00:00:00Z",
            "+12027-03-06T10:00:00Z",
            "-0001-03-06T10:00:00Z",
            "2027-03-06T10:00:00 Asia/Seoul",
            "2027-03-06T10:00:00Z[Asia/Seoul]",
            "２０２７-03-06T10:00:00Z",
            "2027-3-6T10:00:00Z",
            "1804327200",
        ] {
            table.but(at, json!(time), "time_invalid", at);
        }
        for time in [json!(1_804_327_200), json!(1.8e9), json!(true), json!({}), json!([])] {
            table.but(at, time, "type_mismatch", at);
        }
    }
    for time in [
        "2027-03-05T00:28:59Z",
        "1970-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2027-05-04T00:30:01Z",
        "9999-12-31T23:59:59Z",
    ] {
        table.but("/scheduledAt", json!(time), "time_range", "/scheduledAt");
    }
    for time in [
        "2027-03-05T00:30:00Z",
        "2027-03-05T00:29:59Z",
        "1970-01-01T00:00:00Z",
        "2027-07-03T00:30:01Z",
        "9999-12-31T23:59:59Z",
    ] {
        table.but("/expiresAt", json!(time), "time_range", "/expiresAt");
    }
    let order = changed(good(), "/scheduledAt", json!("2027-03-06T00:00:00Z"));
    for time in ["2027-03-06T00:00:00Z", "2027-03-06T08:59:59+09:00"] {
        let order = changed(order.clone(), "/expiresAt", json!(time));
        table.body("worthless before it may go", &order, 422, "time_range", "/expiresAt");
    }

    table.but("/metadata", json!({"k": "x".repeat(4 << 10)}), "metadata_invalid", "/metadata");
    for name in ["", "__proto__", "constructor", "prototype", &"k".repeat(65)] {
        table.but("/metadata", json!({name: 1}), "metadata_invalid", "/metadata");
    }
    for value in [json!({}), json!({"a": 1}), json!([]), json!(["a"])] {
        table.but("/metadata", json!({"a/b": value}), "metadata_invalid", "/metadata/a~1b");
    }
}

/// Headers, addresses and query parameters.
fn wrong_requests(table: &mut Table) {
    table.with_headers(&[], 415, "content_type_missing", "");
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/jsonp",
        "application/merge-patch+json",
        "*/*",
        "",
        "application/json; charset=",
        "application/json; charset",
        "application/json; charset = utf-8",
        "application/json; x=\"utf-8",
        "application/json, application/json",
    ] {
        table.with_headers(&[("Content-Type", kind)], 415, "content_type_unsupported", "");
    }
    table.with_headers(&[JSON, ("Content-Type", "text/plain")], 415, "content_type_unsupported", "");
    for charset in ["utf-16", "iso-8859-1", "\"euc-kr\"", "utf-8; charset=utf-16", "\"\"", "utf-16; x=\";\"", "utf8x"] {
        let kind = format!("application/json; charset={charset}");
        table.with_headers(&[("Content-Type", &kind)], 415, "charset_unsupported", "");
    }
    for encoding in ["gzip", "br", "zstd", "deflate", "x", "identity, gzip"] {
        table.with_headers(&[JSON, ("Content-Encoding", encoding)], 415, "content_encoding_unsupported", "");
    }
    let twice = [JSON, ("Content-Encoding", "identity"), ("Content-Encoding", "gzip")];
    table.with_headers(&twice, 415, "content_encoding_unsupported", "");

    for bad in ["", &"k".repeat(129), "키"] {
        table.with_headers(&[JSON, ("Idempotency-Key", bad)], 422, "idempotency_key_invalid", "Idempotency-Key");
    }
    let two = [JSON, ("Idempotency-Key", "a"), ("Idempotency-Key", "a")];
    table.with_headers(&two, 422, "idempotency_key_invalid", "Idempotency-Key");
    let differs = changed(good(), "/clientMsgId", json!("b")).to_string();
    let bytes = request("POST", "/v1/messages", &[JSON, ("Idempotency-Key", "a")], differs.as_bytes());
    table.raw("two keys", bytes, 422, "idempotency_key_invalid", "Idempotency-Key");
    let bytes =
        request("POST", "/v1/messages/batch", &[JSON, ("Idempotency-Key", "a")], batch(2).to_string().as_bytes());
    table.raw("one key for many", bytes, 422, "idempotency_key_invalid", "Idempotency-Key");

    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/message",
        "/V1/messages",
        "/v1/messages/",
        "/v1//messages",
        "/v1/messages/x/y",
        "/notifications/",
        "/../etc/passwd",
        "/v1/messages/%2e%2e/x",
        "/admin",
        "/%ff",
    ] {
        table.get(path, 404, "not_found");
        table.post_to(path, &good(), 404, "not_found", "");
    }
    let ids = [
        "x",
        "0",
        "0000000000000",
        "7ZZZZZZZZZZZZ",
        "8000000000000",
        "00000000000000",
        "000000000000U",
        "000000000000-",
        "6f1c2a3b-0d4e-4f5a-8b6c-7d8e9f0a1b2c",
        "%7B0000000000000%7D",
        "%00",
        "%ff",
        "%E2%80%AE",
        "1%27%20or%201=1",
        "0000000000000%00",
        "-1",
        "9223372036854775808",
        "%EF%BC%90000000000000",
        &"9".repeat(5000),
    ];
    for id in ids {
        table.get(&format!("/v1/messages/{id}"), 404, "not_found");
        table.get(&format!("/v1/messages/{id}/timeline"), 404, "not_found");
        table.get(&format!("/notifications/{id}"), 404, "not_found");
        table.get(&format!("/v1/deliveries/{id}"), 404, "not_found");
        table.get(&format!("/v1/deliveries/{id}-1"), 404, "not_found");
        table.post_to(&format!("/v1/messages/{id}/cancel"), &json!({}), 404, "not_found", "");
    }
    for no in ["", "0", "01", "+1", "-1", "32768", "99999999999", "1.0", "%EF%BC%91", "1-1", "x"] {
        table.get(&format!("/v1/deliveries/0000000000000-{no}"), 404, "not_found");
    }

    let long = "x".repeat(8200);
    for path in [format!("/{long}"), format!("/v1/messages?type={long}"), format!("/v1/messages/{long}")] {
        table.get(&path, 414, "uri_too_long");
    }
    let mine = "/v1/messages/0000000000000";
    for path in [mine, &format!("{mine}/timeline"), "/v1/deliveries/0000000000000-1", "/notifications/0000000000000"] {
        table.get(&format!("{path}?limit=1"), 400, "query_unknown");
    }
    table.post_to(&format!("{mine}/cancel?force=true"), &json!({}), 400, "query_unknown", "");
    for path in [
        "/v1/messages?dryrun=true",
        "/v1/messages?dryRun=true&x=1",
        "/v1/messages/batch?dryRun=true",
        "/notifications?dryRun=true",
    ] {
        table.post_to(path, &good(), 400, "query_unknown", "");
    }
    table.post_to("/v1/messages?dryRun=true&dryRun=true", &good(), 400, "query_duplicate", "");
    for value in ["", "1", "yes", "TRUE", "true%00", "%ff"] {
        table.post_to(&format!("/v1/messages?dryRun={value}"), &good(), 400, "query_invalid", "");
    }
    for list in ["/v1/messages", "/v1/deliveries", "/notifications"] {
        for bad in ["x=1", "limit%00=1", "Limit=1", "limit[]=1", "=1", "status[]=SENT", "%ff=1", "limit=1&sort=asc"] {
            table.get(
                &format!("{list}?{bad}"),
                400,
                if bad.contains("%00") { "query_invalid" } else { "query_unknown" },
            );
        }
        for bad in ["limit=1&limit=1", "status=FAILED&status=FAILED", "x=1&x=2"] {
            table.get(&format!("{list}?{bad}"), 400, "query_duplicate");
        }
        for bad in [
            "limit=0",
            "limit=201",
            "limit=-1",
            "limit=1.0",
            "limit=1e2",
            "limit=",
            "limit=ten",
            "limit=%201",
            "limit=99999999999999999999",
            "limit=０",
            "since=yesterday",
            "since=2027-03-05",
            "since=",
            "until=1804204800",
            "until=2027-02-30T00:00:00Z",
            "status=sent",
            "status=DONE",
            "status=",
            "channel=FAX",
            "channel=email",
            "channel=",
            "status=%ff",
            "limit=%00",
        ] {
            table.get(&format!("{list}?{bad}"), 400, "query_invalid");
        }
        for bad in ["", "x", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "%00", "..%2f", &"A".repeat(4000)] {
            let reason = if bad == "%00" { "query_invalid" } else { "cursor_invalid" };
            table.get(&format!("{list}?cursor={bad}"), 400, reason);
        }
        let text = if list == "/notifications" { "recipient" } else { "to" };
        table.get(&format!("{list}?{text}=a%00b"), 400, "query_invalid");
        table.get(&format!("{list}?{text}=%ff"), 400, "query_invalid");
    }
}

/// Batches are all or nothing, whatever is wrong with how many.
fn wrong_batches(table: &mut Table) {
    let to = "/v1/messages/batch";
    table.post_to(to, &batch(0), 422, "batch_size", "/messages");
    table.post_to(to, &batch(1001), 422, "batch_size", "/messages");
    table.post_to(to, &json!({}), 422, "required", "/messages");
    table.post_to(to, &json!({"messages": null}), 422, "null_not_allowed", "/messages");
    table.post_to(to, &json!({"messages": good()}), 422, "type_mismatch", "/messages");
    table.post_to(to, &json!([good()]), 422, "type_mismatch", "");
    table.post_to(to, &json!({"messages": [good(), 1]}), 422, "type_mismatch", "/messages/1");
    table.post_to(to, &json!({"messages": [good()], "dryRun": true}), 422, "unknown_field", "/dryRun");
    let bad = changed(batch(500), "/messages/250/channels/0/to", json!("nobody"));
    table.post_to(to, &bad, 422, "recipient_invalid", "/messages/250/channels/0/to");
    let bad = changed(batch(3), "/messages/2/channels/0/channel", json!("FAX"));
    table.post_to(to, &bad, 400, "enum", "/messages/2/channels/0/channel");
    let mut twice = batch(4);
    for n in [1, 3] {
        twice = changed(twice, &format!("/messages/{n}/clientMsgId"), json!("same"));
    }
    table.post_to(to, &twice, 422, "duplicate_in_batch", "/messages/3/clientMsgId");
}

/// Wrong fields of seed 003's short form are named in its own words.
fn wrong_notifications(table: &mut Table) {
    let to = "/notifications";
    let short = json!({"type": "A", "title": "t", "message": "m", "recipient": "kim@example.com",
        "channels": ["EMAIL", "SLACK"]});
    for name in ["type", "message", "recipient", "title", "channels"] {
        table.post_to(to, &without(short.clone(), &format!("/{name}")), 422, "required", &format!("/{name}"));
    }
    for name in ["type", "title", "message", "recipient"] {
        for (value, reason) in [(json!(1), "type_mismatch"), (json!(""), "empty"), (json!("a\0b"), "control_character")]
        {
            table.post_to(to, &changed(short.clone(), &format!("/{name}"), value), 422, reason, &format!("/{name}"));
        }
    }
    for (path, value, status, reason) in [
        ("/recipient", json!("nobody"), 422, "recipient_invalid"),
        ("/recipient", json!(["a@b.kr"]), 422, "type_mismatch"),
        ("/channels", json!([]), 422, "empty"),
        ("/channels", json!("EMAIL"), 422, "type_mismatch"),
        ("/channels/1", json!(1), 422, "type_mismatch"),
        ("/channels/1", json!(null), 422, "type_mismatch"),
        ("/channels/1", json!("SMS"), 400, "enum"),
        ("/channels/1", json!("slack"), 400, "enum"),
        ("/type", json!("a b"), 400, "type_invalid"),
        ("/status", json!("SENT"), 422, "unknown_field"),
        ("/body", json!("x"), 422, "unknown_field"),
        ("/template", json!("x"), 422, "unknown_field"),
        ("/message", json!("x".repeat(40_001)), 422, "content_too_long"),
        ("/title", json!("x".repeat(251)), 422, "content_too_long"),
        ("/priority", json!("HIGH"), 422, "enum"),
        ("/scheduledAt", json!("soon"), 422, "time_invalid"),
        ("/metadata", json!([]), 422, "type_mismatch"),
    ] {
        table.post_to(to, &changed(short.clone(), path, value), status, reason, path);
    }
    let mixed = changed(good(), "/channels/-", json!("SLACK"));
    table.post_to(to, &mixed, 422, "type_mismatch", "/channels/1");
}

/// Whether a text of the answer repeats more than 64 characters of what was sent.
fn echoes(sent: &[u8], shown: &Value) -> bool {
    const MOST: usize = 64;
    match shown {
        Value::String(text) => {
            let pieces: HashSet<&[u8]> = text.as_bytes().windows(MOST + 1).collect();
            !pieces.is_empty() && sent.windows(MOST + 1).any(|piece| pieces.contains(piece))
        }
        Value::Array(items) => items.iter().any(|item| echoes(sent, item)),
        Value::Object(fields) => fields.values().any(|value| echoes(sent, value)),
        _ => false,
    }
}

/// What holds of every refusal.
#[track_caller]
fn check(name: &str, sent: &[u8], reply: &Reply) {
    assert!((400..500).contains(&reply.status), "{name}: {reply:?}");
    assert_eq!(reply.header("content-type"), "application/problem+json", "{name}: {reply:?}");
    let body = &reply.body;
    let text = |name: &str| body[name].as_str().unwrap_or_default();
    assert_eq!(body["status"], reply.status, "{name}");
    assert_eq!((text("requestId"), text("requestId").len()), (reply.header("x-request-id"), 13), "{name}");
    assert_eq!(text("type"), format!("urn:notihub:problem:{}", text("reason")), "{name}");
    assert!(!text("title").is_empty() && !text("detail").is_empty(), "{name}: {reply:?}");
    assert_ne!(text("reason"), "rejected_by_database", "{name}: it came as far as the database");
    let code = match (reply.status, text("reason")) {
        (400, "enum" | "channel_unavailable" | "type_invalid") => "E005",
        (422, "content_too_long") => "E006",
        (409, _) => "E004",
        _ => "E001",
    };
    assert_eq!(text("code"), code, "{name}: {reply:?}");
    assert!(!echoes(sent, &reply.body), "{name}: repeats what was sent: {}", reply.text);
}

/// The bad-input catalogue. Each row has its own answer; after all of them nothing was written, nothing reached the
/// database's own checks, and nothing was our fault.
#[tokio::test]
async fn bad_input_of_each_kind_has_its_refusal_and_leaves_nothing() {
    let app = App::new().await;
    let mut table = Table::default();
    unreadable(&mut table);
    misshapen(&mut table);
    wrong_texts(&mut table);
    wrong_values(&mut table);
    wrong_requests(&mut table);
    wrong_batches(&mut table);
    wrong_notifications(&mut table);
    assert!(table.0.len() > 500, "the table has lost most of its rows: {}", table.0.len());
    let mut wrong = Vec::new();
    for row in table.0 {
        let mut wire = Wire::open(&app).await;
        wire.send(&row.bytes).await;
        let reply = wire.reply().await.unwrap_or_else(|| panic!("{}: no answer", row.name));
        let output = |name: &str| reply.body[name].as_str().unwrap_or_default().to_owned();
        let pointer = reply.body["errors"][0]["pointer"].as_str().unwrap_or_default();
        if (reply.status, output("reason").as_str(), pointer) != (row.status, row.reason, &row.pointer) {
            wrong.push(format!(
                "{}\n    wanted {} {} {}\n    got {} {:.300}",
                row.name, row.status, row.reason, row.pointer, reply.status, reply.text
            ));
            continue;
        }
        check(&row.name, &row.bytes, &reply);
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
    for table in ["messages", "deliveries", "idempotency", "attempts", "events"] {
        let rows: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select count(*) from {table}")))
            .fetch_one(&app.db().await)
            .await
            .unwrap();
        assert_eq!(rows, 0, "{table}");
    }
    let metrics = app.metrics().await.text;
    let ours = metrics.lines().find(|l| l.starts_with("notihub_http_requests_total") && l.contains("status=\"5"));
    assert_eq!(ours, None);
    app.done().await;
}

/// A body that is too large is answered before it is read to its end, and the connection is closed; the largest allowed
/// one is accepted.
#[tokio::test]
async fn body_too_large_is_not_read_to_its_end() {
    const MIB: usize = 1 << 20;
    let app = App::new().await;
    let spaces = |n: usize| [good().to_string().into_bytes(), vec![b' '; n]].concat();
    let length = good().to_string().len();
    for (path, most) in [("/v1/messages", MIB), ("/v1/messages/batch", 8 * MIB), ("/notifications", MIB)] {
        let body = spaces(most - length + 1);
        let head = format!("POST {path} HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n");
        let chunk = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len());
        let chunked = [chunk.as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        // The promised length is never sent.
        let promised = format!("{head}Content-Length: 99999999999\r\n\r\n").into_bytes();
        let promised = [promised, vec![b'x'; most + 1]].concat();
        for (name, bytes) in
            [("whole", request("POST", path, &[JSON], &body)), ("chunked", chunked), ("promised", promised)]
        {
            let mut wire = Wire::open(&app).await;
            wire.send(&bytes).await;
            let reply = wire.reply().await.unwrap_or_else(|| panic!("{path} {name}: no answer"));
            assert_eq!((reply.status, &reply.body["reason"]), (413, &json!("body_too_large")), "{path} {name}");
            check(name, b"", &reply);
            assert!(wire.ends().await, "{path} {name}: the connection lives on");
        }
    }
    assert_eq!(app.count("select count(*) from messages").await, 0);
    app.post_raw("/v1/messages", &[JSON], spaces(MIB - length)).await.expect(202);
    app.done().await;
}

/// Bodies at the very edge, or merely unusual, are accepted as they are.
#[tokio::test]
async fn body_unusual_but_valid_is_accepted() {
    let app = App::new().await;
    for (path, value) in [
        ("/title", json!("가".repeat(250))),
        ("/title", json!("<script>alert(1)</script> {{7*7}} ${x} '; drop table messages; --")),
        ("/title", json!("\u{e9}\u{301}\u{301} \u{e000} \u{1f468}\u{200d}\u{1f469}")),
        ("/body", json!("x".repeat(64 << 10))),
        ("/body", json!("line\n\ttab \u{1} \u{202e} \u{2028} \u{feff}")),
        ("/type", json!("a.B-c_d:9")),
        ("/type", json!("x".repeat(64))),
        ("/clientMsgId", json!("키 ".repeat(64))),
        ("/priority", json!("URGENT")),
        ("/channels/0/subject", json!("제목")),
        ("/channels/0/html", json!("<p>hi</p>")),
        ("/channels/0/to", json!("a.b+c_d-e!#$%&'*/=?^`{|}~@xn--9n2bp8q.xn--3e0b707e")),
        ("/channels/0/to", json!(format!("{}@{}.{}.kr", "x".repeat(64), "y".repeat(63), "z".repeat(63)))),
        ("/channels/0/to", json!(["a@b.kr", "c@d.kr"])),
        ("/channels/-", json!({"channel": "SLACK", "to": "dev", "blocks": vec![json!({"type": "divider"}); 50]})),
        ("/scheduledAt", json!("2027-03-05T00:29:00Z")),
        ("/scheduledAt", json!("2027-05-04T09:29:59.123456+09:00")),
        ("/scheduledAt", json!("2027-03-28T02:30:00+01:00")),
        ("/expiresAt", json!("2027-03-05t00:30:01z")),
        ("/expiresAt", json!("2027-03-04T14:30:01.5-10:00")),
        ("/metadata", json!({"a": null, "b": 1e308, "c": -0.0, "d": u64::MAX, "e": "\u{10ffff}", "f/~": true})),
        ("/metadata", json!({"k".repeat(64): "v"})),
        ("/recipients", json!([{"id": "u-1", "email": "u@example.com"}])),
    ] {
        let answer = app.post("/v1/messages", changed(good(), path, value.clone())).await;
        assert_eq!(answer.status, 202, "{path} {value:.80}: {}", answer.text);
        let stored = app.message(&answer.id()).await;
        let named =
            [("/title", "title"), ("/type", "type"), ("/metadata", "metadata"), ("/clientMsgId", "clientMsgId")];
        if let Some((_, name)) = named.into_iter().find(|(at, _)| *at == path) {
            assert_eq!(stored[name], value, "{path} comes back as it went in");
        }
        if path == "/body" {
            assert_eq!(stored["contents"][0]["body"], value);
        }
    }
    for name in
        ["clientMsgId", "priority", "title", "body", "scheduledAt", "expiresAt", "metadata", "recipients", "template"]
    {
        let path = format!("/{name}");
        let own = json!([{"channel": "EMAIL", "to": "kim@example.com", "subject": "s", "body": "b", "html": null}]);
        let body = changed(changed(good(), "/channels", own), &path, Value::Null);
        assert_eq!(app.post("/v1/messages", body).await.status, 202, "null is as good as nothing: {name}");
    }
    let text = good().to_string().into_bytes();
    // Fault E11: parameters in every form of RFC 9110 5.6.6, and a charset that only names JSON's own encoding.
    for kind in [
        "application/json;charset=UTF-8",
        "Application/JSON; Charset=\"utf-8\"",
        "application/json; charset=utf8",
        "application/json;\tCHARSET=\"UTF8\" ; ;",
        "application/json; charset=\"ut\\f-8\"",
        "application/json; x=y",
        "application/json; x=\"; charset=utf-16\"",
    ] {
        app.post_raw("/v1/messages", &[("content-type", kind)], text.clone()).await.expect(202);
    }
    let odd =
        [JSON, ("Content-Encoding", "Identity"), ("Accept", "application/xml"), ("X-HTTP-Method-Override", "DELETE")];
    let answer = app.post_raw("/v1/messages", &odd, text).await.expect(202);
    assert_eq!(answer.header("content-type"), "application/json", "there is one form of answer");
    app.done().await;
}

/// The fault with a text that is too long says how long it is, how long it may be, and in what.
#[tokio::test]
async fn text_too_long_is_refused_with_length_limit_and_unit() {
    let app = App::new().await;
    for (path, value, detail) in [
        ("/title", "가".repeat(251), "is 251 characters long; the limit is 250 characters"),
        ("/body", "가".repeat(30_000), "is 90000 bytes long; the limit is 65536 bytes"),
    ] {
        let answer =
            app.post("/v1/messages", changed(good(), path, json!(value))).await.refused(422, "content_too_long");
        let fault = &answer.body["errors"][0];
        assert_eq!(
            (&answer.body["code"], &fault["pointer"], &fault["detail"]),
            (&json!("E006"), &json!(path), &json!(detail))
        );
    }
    let slack = json!({"type": "A", "body": "가".repeat(20_000), "channels": [{"channel": "SLACK", "to": "ops"}]});
    app.post("/v1/messages", slack).await.expect(202);
    app.done().await;
}

/// All faults are in one answer, in the order of the body, and the first heads it.
#[tokio::test]
async fn body_with_several_faults_is_refused_with_all() {
    let app = App::new().await;
    let body = json!({"title": 1, "priority": "SOON", "extra": true, "channels": [
        {"channel": "EMAIL", "to": ["x", "a@b.kr", "y"], "subject": "s", "body": "b"}, {"channel": "FAX", "to": "1"}]});
    let answer = app.post("/v1/messages", body).await.refused(422, "required");
    let faults: Vec<(&str, &str)> = answer.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| (f["pointer"].as_str().unwrap(), f["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(
        faults,
        [
            ("/type", "required"),
            ("/priority", "enum"),
            ("/title", "type_mismatch"),
            ("/extra", "unknown_field"),
            ("/channels/0/to/0", "recipient_invalid"),
            ("/channels/0/to/2", "recipient_invalid"),
            ("/channels/1/channel", "enum"),
        ]
    );
    let many = app.post("/v1/messages", changed(good(), "/channels/0/to", json!(vec!["x"; 10_000]))).await;
    let many = many.refused(422, "recipient_invalid");
    assert_eq!(many.body["errors"].as_array().unwrap().len(), 50, "enough is enough");
    assert_eq!(many.body["detail"], "at least 50 faults; see errors");
    app.done().await;
}

/// However deep a caller nests its own names, little of them comes back.
#[tokio::test]
async fn pointer_of_a_fault_repeats_little_of_the_body() {
    let app = App::new().await;
    let name = "n".repeat(60);
    let deep = format!("{{\"type\":{}1,\"x\":2,\"x\":3{}}}", format!("{{\"{name}\":").repeat(100), "}".repeat(100));
    let deep = deep.replace("1,\"x\":2", &format!("{{\"x\":1,\"x\":2}},\"{name}\":\"\\u0000\""));
    let answer = app.post_raw("/v1/messages", &[JSON], deep.into_bytes()).await;
    assert_eq!((answer.status, &answer.body["reason"]), (422, &json!("duplicate_key")), "{}", answer.text);
    for fault in answer.body["errors"].as_array().unwrap() {
        let pointer = fault["pointer"].as_str().unwrap();
        assert!(pointer.matches('n').count() <= 100 && pointer.len() <= 100, "{pointer}");
    }
    app.done().await;
}

/// Pieces that have broken readers of JSON, and words of ours in the wrong places.
const NASTY: [&str; 40] = [
    "null",
    "true",
    "0",
    "-0",
    "-1",
    "1.0",
    "1e0",
    "1e308",
    "1e400",
    "-1e400",
    "1E-400",
    "9223372036854775808",
    "NaN",
    "\"\"",
    "\" \"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\udbff\\udfff\"",
    "\"\\u202e\"",
    "\"\u{10ffff}\"",
    "[]",
    "{}",
    "[[]]",
    "{\"\":{}}",
    "[null]",
    "\"EMAIL\"",
    "\"SLACK\"",
    "\"ops\"",
    "\"SMS\"",
    "\"9999-12-31T23:59:59Z\"",
    "\"2027-03-06T00:00:00+23:59\"",
    "\"294278-01-01T00:00:00Z\"",
    "\"a@b.kr\"",
    "[\"a@b.kr\",\"c@d.kr\"]",
    "{\"channel\":\"EMAIL\"}",
    "[{\"type\":\"divider\"}]",
    "\"%00\"",
    "\"${x}\"",
    "{\"type\":1,\"type\":2}",
    "\"\\\\\"",
];

/// A body with something wrong, or merely odd, about it.
fn mutated(rng: &mut StdRng, seeds: &[String]) -> Vec<u8> {
    let mut body = seeds.choose(rng).expect("a seed").clone().into_bytes();
    for _ in 0..rng.random_range(1..=3) {
        let at = rng.random_range(0..=body.len());
        let upto = (at + rng.random_range(0..12)).min(body.len());
        match rng.random_range(0..9) {
            0 => body.truncate(at),
            1 => drop(body.drain(at..upto)),
            2 => drop(body.splice(at..at, rng.random::<[u8; 3]>())),
            3 if at < body.len() => body[at] ^= 1 << rng.random_range(0..8),
            4 => {
                let piece = body[at..upto].to_vec();
                drop(body.splice(at..at, piece.repeat(rng.random_range(1..200))));
            }
            5 => drop(body.splice(at..upto, NASTY.choose(rng).expect("one").bytes())),
            // A value in the place of another: the shape of JSON is kept, so this gets furthest.
            _ => replace_a_value(rng, &mut body),
        }
    }
    body
}

fn replace_a_value(rng: &mut StdRng, body: &mut Vec<u8>) {
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return };
    let mut places = Vec::new();
    walk(&value, String::new(), &mut places);
    let place = places.choose(rng).expect("the root at least").clone();
    let mark = "\u{1}here\u{1}";
    if let Some(target) = value.pointer_mut(&place) {
        *target = json!(mark);
    }
    let nasty = NASTY.choose(rng).expect("one");
    *body = value.to_string().replace("\"\\u0001here\\u0001\"", nasty).into_bytes();
}

fn walk(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, v)| walk(v, format!("{at}/{name}"), places)),
        Value::Array(items) => items.iter().enumerate().for_each(|(n, v)| walk(v, format!("{at}/{n}"), places)),
        _ => (),
    }
    places.push(at);
}

/// Thousands of bodies and queries that chance has spoilt: each is taken or refused, none is our fault, and none comes
/// as far as the database's own checks. The same ones every time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn body_spoilt_at_random_is_accepted_or_refused() {
    const EACH: usize = 500;
    let app = App::new().await;
    let full = json!({"clientMsgId": "c", "type": "TEST", "priority": "BULK", "title": "t", "body": "b",
        "scheduledAt": "2027-03-06T00:00:00Z", "expiresAt": "2027-03-07T00:00:00Z", "metadata": {"k": "v", "n": 1},
        "recipients": [{"id": "u", "email": "u@example.com"}],
        "channels": [{"channel": "EMAIL", "subject": "s", "html": "<p>"}, {"channel": "SLACK", "to": ["ops", "dev"],
            "blocks": [{"type": "section", "text": {"type": "plain_text", "text": "x"}}]}]});
    let short = json!({"type": "A", "title": "t", "message": "m", "recipient": "kim@example.com",
        "channels": ["EMAIL", "SLACK"]});
    let seeds: Vec<String> =
        [good(), full.clone(), short, json!({"messages": [good(), full]})].iter().map(Value::to_string).collect();
    let paths = ["/v1/messages", "/v1/messages?dryRun=true", "/notifications", "/v1/messages/batch"];
    let lists = ["/v1/messages", "/v1/deliveries", "/notifications"];
    let names = [
        "limit",
        "cursor",
        "since",
        "until",
        "status",
        "channel",
        "type",
        "clientMsgId",
        "to",
        "recipient",
        "provider",
        "error",
    ];
    let walker = async |seed: u64| {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut taken = 0;
        for n in 0..EACH {
            let bytes = if n % 5 == 0 {
                let value: String = mutated(&mut rng, &seeds).iter().take(40).map(|b| format!("%{b:02x}")).collect();
                let (list, name) = (lists.choose(&mut rng).expect("one"), names.choose(&mut rng).expect("one"));
                request("GET", &format!("{list}?{name}={value}"), &[], b"")
            } else {
                request("POST", paths.choose(&mut rng).expect("one"), &[JSON], &mutated(&mut rng, &seeds))
            };
            let mut wire = Wire::open(&app).await;
            wire.send(&bytes).await;
            let reply = wire.reply().await.expect("an answer");
            let output = || format!("walker {seed}, step {n}: {} -> {reply:?}", String::from_utf8_lossy(&bytes));
            if reply.status < 300 {
                taken += 1;
                continue;
            }
            assert!((400..500).contains(&reply.status), "{}", output());
            check(&output(), if n % 5 == 0 { b"" } else { &bytes }, &reply);
        }
        taken
    };
    let taken: usize = futures_util::future::join_all((1..=8).map(walker)).await.into_iter().sum();
    assert!((100..8 * EACH - 1000).contains(&taken), "{taken} taken: chance no longer spoils, or spoils everything");
    // Also what was put off until tomorrow, or was never to be sent so late.
    app.advance(2 * 86_400);
    app.settle_all().await;
    app.done().await;
}
