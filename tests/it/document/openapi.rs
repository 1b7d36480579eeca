//! The API's description of itself: equal to the router, complete about what can go wrong, and true of the answers, as
//! an independent program (schemathesis) finds by asking.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use notihub::error::{CODES, DELIVERY_REASONS, REASONS};
use notihub::flow::fallback::FallbackReason;
use notihub::model::delivery::{REASON_DESTINATION_FAILING, REASON_DESTINATION_PACED};
use notihub::model::receipt::{NO_RECEIPT, RECEIPT_ACCEPTED, RECEIPT_EXPIRED, RECEIPT_FAILED};
use notihub::model::retry;
use serde_json::{Value, json};

use crate::laws::{files, read, root};
use crate::support::app::{App, email, slack_post};

/// Every channel that can be posted has a provider.
const MOCKED: &str = "--mock=SMS,LMS,MMS,KAKAO_ALIMTALK,KAKAO_BRAND_MESSAGE,NAVER_TALK,RCS";

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

/// path → method → operation
fn operations(document: &Value) -> BTreeMap<String, BTreeMap<String, Value>> {
    serde_json::from_value(document["paths"].clone()).unwrap()
}

/// Every route is on its page with its path, registered with its description, and answers to the methods it describes
/// and to no others.
#[tokio::test]
async fn document_has_the_routes_of_the_router() {
    let page = std::fs::read_to_string(root().join("src/api/mod.rs")).unwrap();
    // Pages for people are no part of the API.
    let is_page = |line: &str| {
        let docs = ["/docs", "/docs/{topic}", "/docs/style.css", "/llms.txt"].map(|path| (path, "docs"));
        let inbox = ["/inbox.js", "/inbox/demo", "/inbox/demo.js", "/inbox/demo.css"].map(|path| (path, "inbox_pages"));
        let chat = ["/chat/demo", "/chat/demo.js", "/chat/demo.css", "/chat/messages.js", "/chat/stomp.js"]
            .map(|path| (path, "chat_pages"));
        docs.iter()
            .chain(&inbox)
            .chain(&chat)
            .any(|(path, room)| line.contains(&format!(".route(\"{path}\", get({room}::")))
    };
    let page: String = page.lines().filter(|line| !is_page(line)).map(|line| format!("{line}\n")).collect();
    for undescribed in [".route(", ".nest(", ".merge(", ".route_service(", ".nest_service("] {
        assert!(
            !page.contains(undescribed),
            "src/api/mod.rs: {undescribed}…) adds what /openapi.json does not tell; give the handler \
                #[utoipa::path(…)] \
             and register it with .routes(routes!(…))"
        );
    }
    let lines = page.lines().filter_map(|line| line.trim().strip_prefix(".routes(routes!("));
    let registered: BTreeMap<String, usize> = lines
        .map(|line| {
            let (handlers, path) = line.split_once(")) // ").expect("a route's line ends with its path");
            (path.to_owned(), handlers.split(',').count())
        })
        .collect();

    let app = App::new().await;
    let answer = app.get("/openapi.json").await.expect(200);
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    let described = operations(&answer.body);
    let counts: BTreeMap<String, usize> = described.iter().map(|(path, of)| (path.clone(), of.len())).collect();
    assert_eq!(registered, counts, "src/api/mod.rs on the left, /openapi.json on the right");

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (path, of) in &described {
        for method in METHODS {
            let asked = reqwest::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let status = http.request(asked, app.uri(&path.replace("{id}", "0"))).send().await.unwrap().status();
            assert_eq!(status == 405, !of.contains_key(method), "{method} {path}: {status}");
        }
    }
    app.done().await;
}

/// The document names its version and licence; every operation names its purpose, its callers and its answers; every
/// reference leads somewhere.
#[tokio::test]
async fn document_describes_each_operation() {
    let app = App::new().await;
    let document = app.get("/openapi.json").await.expect(200).body;
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["info"]["license"]["identifier"], "Apache-2.0");
    let tags: Vec<&Value> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut ids = BTreeSet::new();
    for (path, of) in operations(&document) {
        for (method, operation) in of {
            let at = format!("{method} {path}");
            assert!(ids.insert(operation["operationId"].to_string()), "{at}: its operationId is another's");
            assert!(operation["summary"].is_string() && operation["description"].is_string(), "{at}: no summary");
            assert!(tags.contains(&&operation["tags"][0]), "{at}: no tag of TAGS in src/api/openapi.rs");
            let open = ["/v1/errors", "/v1/auth/", "/v1/receipts/"].iter().any(|open| path.starts_with(open));
            let signed = [
                "/v1/",
                "/api/v1/users",
                "/api/v1/sse",
                "/api/v1/chatrooms",
                "/api/v1/messages",
                "/api/channels",
                "/notifications",
                "/metrics",
                "/about",
            ];
            let behind_sign_in = signed.iter().any(|signed| path.starts_with(signed)) && !open;
            assert_eq!(operation["security"] == json!([{"bearer": []}]), behind_sign_in, "{at}: security");
            for (status, answer) in operation["responses"].as_object().unwrap() {
                assert!(answer["headers"]["X-Request-Id"].is_object(), "{at} {status}");
                let problem = &answer["content"]["application/problem+json"]["schema"]["$ref"];
                let shown = status.starts_with('2') || (status == "503" && path == "/readyz");
                let name = if path.starts_with("/api/") { "EnvelopedProblem" } else { "Problem" };
                let wanted = json!(format!("#/components/schemas/{name}"));
                assert!(shown || *problem == wanted, "{at} {status}: no problem");
            }
        }
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} is nowhere");
    }
    assert!(text.matches("\"$ref\"").count() > 50, "the document has gone blind");
    app.done().await;
}

/// The arguments of a call whose parenthesis was just opened, as they are written.
fn arguments(source: &str) -> Vec<String> {
    let (mut found, mut depth, mut in_text, mut escaped) = (vec![String::new()], 0, false, false);
    for c in source.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_text = !in_text,
            _ if in_text => (),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => (),
        }
        if let Some(last) = found.last_mut() {
            last.push(c);
        }
    }
    found.into_iter().map(|argument| argument.trim().to_owned()).collect()
}

/// `"not_found"` as the word it is.
fn word(literal: &str) -> Option<String> {
    let word = literal.strip_prefix('"')?.strip_suffix('"')?;
    let is_word = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    is_word.then(|| word.to_owned())
}

/// The reasons that a source refuses with, wherever one can be written: (what stands before it, which argument it is).
fn reasons_in(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // Words in the code count, words in the tests of the same file do not: the tests begin at `#[cfg(test)]`.
    let source = source.split("#[cfg(test)]").next().unwrap();
    for (call, at) in [
        ("Refusal::new(", 1),
        (".add(", 1),
        (".add_code(", 2),
        (".add_if_new(", 2),
        ("refuse(", 0),
        ("forbidden(", 0),
        ("Some((", 0),
        ("Err((", 0),
        ("room_refused(", 1),
    ] {
        let calls = source.split(call).skip(1).map(arguments);
        found.extend(calls.filter_map(|arguments| word(arguments.get(at)?)));
    }
    for field in ["reason: ", "reason = "] {
        let given = source.split(field).skip(1).map(arguments);
        found.extend(given.filter_map(|arguments| word(arguments[0].split('}').next()?.trim())));
    }
    // `told(404, Code::E001, "not_found", …)`, `(Code::E001, "invalid", …)`
    let after_code = source.split("Code::E").skip(1).filter_map(|rest| rest.split_once(','));
    found.extend(after_code.filter_map(|(number, rest)| (number.len() == 3).then(|| word(&arguments(rest)[0]))?));
    found
}

/// Every reason that the code refuses with is in REASONS, and REASONS has no other.
#[test]
fn document_lists_every_error_reason() {
    let mut used: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in files("src", ".rs") {
        let source = read(&path);
        used.extend(reasons_in(&source).into_iter().map(|reason| (reason, path.clone())));
    }
    assert!(used.len() > 40, "the reader has gone blind: {used:?}");
    let shown: BTreeSet<&str> = REASONS.iter().map(|reason| reason.word).collect();
    let forgotten: Vec<_> = used.iter().filter(|(reason, _)| !shown.contains(reason.as_str())).collect();
    assert!(
        forgotten.is_empty(),
        "add a row for each to REASONS in src/error/reasons.rs: the word, its code, its status, a cause and a remedy: \
            {forgotten:#?}"
    );
    let unused: Vec<_> = shown.into_iter().filter(|reason| !used.contains_key(*reason)).collect();
    assert!(unused.is_empty(), "nothing refuses with these rows of REASONS in src/error/reasons.rs: {unused:?}");
    for source in [
        "Refusal::new(\n 401,\n \"a_b\", format!(\"x, {y}\"))",
        "faults.add(fields.at(\"body\"), \"a_b\", detail)",
        "faults.add_code(Code::E006, at(&x, \"y\"), \"a_b\", detail)",
        "Fault { pointer, reason: \"a_b\", code }",
        "Refusal { status: 409, reason: \"a_b\" }",
        "told(404, Code::E007, \"a_b\", \"text\")",
        "x => Some((\"a_b\", format!(\"…\"))),",
        "x => Err((\"a_b\", format!(\"…\"))),",
        "refuse(\"a_b\", \"text\")",
        "forbidden(\"a_b\", format!(\"…\"))",
    ] {
        assert_eq!(reasons_in(source).into_iter().collect::<Vec<_>>(), ["a_b"], "{source}");
    }
}

/// Every word that a delivery or an attempt can stand with is in DELIVERY_REASONS, and no other is.
#[test]
fn document_lists_every_delivery_reason() {
    let shown: BTreeSet<String> = DELIVERY_REASONS.iter().map(|row| row.0.to_owned()).collect();
    let mut used: BTreeSet<String> = retry::RETRY_RULES.iter().map(|row| row.reason.to_owned()).collect();
    for source in files("src", ".rs").iter().map(|path| read(path)) {
        let source = source.split("#[cfg(test)]").next().unwrap();
        let source = source.split_whitespace().collect::<Vec<_>>().join(" ");
        for before in ["Unknown { code: ", "Broken { code: ", "reason: Some(", "unknown("] {
            let given = source.split(before).skip(1).map(arguments);
            used.extend(given.filter_map(|arguments| word(&arguments[0])));
        }
        let deferred = source.split("Outcome::deferred(").skip(1).map(arguments);
        used.extend(deferred.filter_map(|arguments| word(arguments.get(1)?)));
        let put_off = source.split("put_off(").skip(1).map(arguments);
        used.extend(put_off.filter_map(|arguments| word(arguments.get(1)?)));
        for before in ["end(Status::", "Some((Status::"] {
            let endings = source.split(before).skip(1).map(arguments);
            used.extend(endings.filter_map(|arguments| word(arguments.get(1)?)));
        }
    }
    for source in files("sql", ".sql").iter().map(|path| read(path)) {
        let set = source.split("reason = '").skip(1).filter_map(|rest| rest.split('\'').next());
        used.extend(set.map(str::to_owned));
    }
    // Without TLS nothing was sent: never an unknown outcome.
    used.remove("starttls_missing");
    used.remove("tls_failed");
    // Written as constants.
    used.extend([REASON_DESTINATION_PACED, REASON_DESTINATION_FAILING].map(str::to_owned));
    // Written with a condition before it.
    used.insert("no_answer".into());
    // Of what receipts say, or their absence, and of what could not be sent at all.
    used.extend([NO_RECEIPT, RECEIPT_ACCEPTED, RECEIPT_EXPIRED, RECEIPT_FAILED].map(str::to_owned));
    used.insert(FallbackReason::ChannelDown.as_str().into());
    assert_eq!(used, shown, "src on the left, DELIVERY_REASONS in src/error/delivery_reasons.rs on the right");
}

/// S0-64, S0-65, S0-66, S0-67, S0-68, S0-69, S0-70, S0-71, S0-72, S0-73, S0-74, S0-75: the closed list of codes and
/// every reason with its cause and remedy, public; each row equals the answer of a refusal.
#[tokio::test]
async fn document_lists_error_codes_with_cause_and_remedy() {
    let app = App::new().await;
    let listed = app.get("/v1/errors").await.expect(200).body;
    let codes: Vec<&str> =
        listed["codes"].as_array().unwrap().iter().map(|code| code["code"].as_str().unwrap()).collect();
    assert_eq!(codes, CODES.map(|row| row.1));
    let reasons = listed["reasons"].as_array().unwrap();
    assert_eq!(reasons.len(), REASONS.len());
    let mut seen = BTreeSet::new();
    for row in reasons {
        let status = row["status"].as_u64().unwrap();
        let (reason, code) = (row["reason"].as_str().unwrap(), row["code"].as_str().unwrap());
        assert!(seen.insert((reason, code)), "{row} is there twice");
        let statuses: &[u64] = match code {
            "E001" => &[400, 404, 405, 408, 409, 412, 413, 414, 415, 422],
            "E002" => &[401, 403],
            "E003" => &[429],
            "E004" => &[409],
            "E005" => &[400],
            "E006" => &[422],
            "E007" => &[404],
            "E008" => &[403],
            "E100" => &[500],
            "E101" | "E102" => &[503],
            _ => &[],
        };
        assert!(statuses.contains(&status), "{row}");
        assert!(["cause", "remedy"].iter().all(|text| row[text].as_str().is_some_and(|t| t.len() > 5)), "{row}");
    }
    assert_eq!(listed["deliveryReasons"].as_array().unwrap().len(), DELIVERY_REASONS.len());

    let refused = app.post("/v1/messages", json!({"type": "a b", "channels": []})).await;
    let row = reasons.iter().find(|row| row["reason"] == refused.body["reason"] && row["code"] == refused.body["code"]);
    assert_eq!(row.unwrap()["status"], refused.status, "{}", refused.text);
    app.get("/v1/errors?x=1").await.refused(400, "query_unknown");
    app.done().await;
}

/// A schema of the document, its reference followed.
fn schema<'a>(document: &'a Value, of: &'a Value) -> &'a Value {
    match of["$ref"].as_str() {
        Some(reference) => schema(document, document.pointer(reference.trim_start_matches('#')).expect(reference)),
        None => of,
    }
}

/// Review F1: the document describes what can be posted. A body made of every field that the document gives a channel
/// is taken, for every channel that can be posted; the address kinds of `recipients` too; and each field of a content
/// that is answered is described.
#[tokio::test]
async fn message_of_every_described_channel_is_accepted() {
    use notihub::model::channel::{AddressKind, CHANNELS};
    let app = App::with(&[MOCKED]).await;
    let document = app.get("/openapi.json").await.expect(200).body;
    let of = |name: &str| &document["components"]["schemas"][name];
    let sample = |channel: &str, field: &str| match (field, channel) {
        ("to", "EMAIL") => json!("kim@example.com"),
        ("to", "SLACK") => json!("ops"),
        ("to", "NAVER_TALK") => json!("al-2eGuGr5WQOnco1_V-FQ"),
        ("to", _) => json!(["010-1234-5678"]),
        ("subject" | "body" | "html", _) => json!("It works."),
        ("templateCode", _) => json!("ORDER_01"),
        ("blocks", _) => json!([{"type": "divider"}]),
        ("actionUrl" | "imageUrl", _) => json!("https://example.com/1"),
        ("category", _) => json!("orders"),
        ("severity", _) => json!("WARNING"),
        ("fallback", _) => json!([]),
        ("channel", word) => json!(word),
        (field, _) => panic!("the document describes a field that this test does not know: {field}"),
    };
    let kinds = of("NewChannel")["oneOf"].as_array().or(of("NewChannel")["anyOf"].as_array()).unwrap();
    let mut described = BTreeSet::new();
    for kind in kinds {
        let fields = schema(&document, kind)["properties"].as_object().unwrap();
        for word in schema(&document, &fields["channel"])["enum"].as_array().unwrap() {
            let word = word.as_str().unwrap();
            assert!(described.insert(word.to_owned()), "{word} is described twice");
            let way: serde_json::Map<String, Value> =
                fields.keys().map(|field| (field.clone(), sample(word, field))).collect();
            let posted = json!({"type": "TEST", "channels": [way]});
            let id = app.post("/v1/messages", posted).await.expect(202).id();
            let found = app.message(&id).await;
            let known = of("Content")["properties"].as_object().unwrap();
            for field in found["contents"][0].as_object().unwrap().keys() {
                assert!(known.contains_key(field), "{word}: contents[].{field} is answered and not described");
            }
        }
    }
    let postable = CHANNELS.iter().filter(|c| c.addressed_by() != AddressKind::Unserved);
    assert_eq!(described, postable.map(|c| c.as_str().to_owned()).collect(), "described, and postable");

    let person = schema(&document, &of("NewMessage")["properties"]["recipients"]["items"])["properties"].clone();
    let sample = |field: &str| match field {
        "id" => json!("u-1"),
        "email" => json!("kim@example.com"),
        "phone" => json!("010-1234-5678"),
        field => panic!("the document describes a field that this test does not know: {field}"),
    };
    let person: serde_json::Map<String, Value> =
        person.as_object().unwrap().keys().map(|field| (field.clone(), sample(field))).collect();
    let channels = json!([{"channel": "EMAIL", "subject": "s"}, {"channel": "SMS"}, {"channel": "KAKAO_ALIMTALK"}]);
    let posted = json!({"type": "TEST", "body": "It works.", "recipients": [person], "channels": channels});
    let stored = app.post("/v1/messages", posted).await.expect(202);
    assert_eq!(stored.body["deliveries"].as_array().unwrap().len(), 3);
    app.settle_all().await;
    app.done().await;
}

/// Tags of operations that a partner alone is refused, or that take too long to be tried ten thousand times.
const OF_USERS: [&str; 5] = ["users", "inbox", "rooms", "channels", "user-sign-in"];

/// What a program reads from the document and tries against the hub: no 5xx, no status or content type or header that
/// is not described, no answer against its schema, nothing taken that the document forbids, nothing refused as
/// unreadable that it allows. Which rules a schema cannot tell is said in tests/fixtures/schemathesis.toml.
#[tokio::test(flavor = "multi_thread")]
async fn document_passes_schemathesis() {
    let found = tokio::process::Command::new("schemathesis").arg("--version").stdout(Stdio::null()).status().await;
    assert!(
        found.is_ok_and(|status| status.success()),
        "schemathesis is not installed: python3 -m pip install schemathesis==4.32.5 (or run .ci/run)"
    );
    // The test clock stands still: a limit of messages would never be free again.
    let app = App::with(&[MOCKED, "--user-sends=10000", "--room-sends=10000"]).await;
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.post("/v1/messages", slack_post("It works.")).await.expect(202);
    app.work().await;
    // In a folder of its own: it writes down what it finds.
    let folder = std::env::temp_dir().join(format!("notihub-schemathesis-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    // From a file: what it loads from an address it does not try.
    let document = app.get("/openapi.json").await.expect(200);
    std::fs::write(folder.join("openapi.json"), &document.text).unwrap();
    let admin = app.staff(notihub::model::access::role::StaffRole::Admin).await;
    let mut printed = String::new();
    // Everything as a partner, what admins do once more as one, and what users do on behalf of one: a partner alone is
    // refused there. A sign-in takes a quarter of a second each time.
    let as_user = Some("X-User: u-1");
    let runs = [
        (&app.token, None, None),
        (&admin, Some("partners"), None),
        (&app.token, Some("users"), as_user),
        (&app.token, Some("inbox"), as_user),
        (&app.token, Some("rooms"), as_user),
        (&app.token, Some("channels"), as_user),
    ];
    for (token, tags, header) in runs {
        // One worker: with two, CPython 3.11 sometimes ends in a SystemError of its own (python/cpython#106905).
        let run = tokio::process::Command::new("schemathesis")
            .arg(format!("--config-file={}/tests/fixtures/schemathesis.toml", root().display()))
            .args(["run", "openapi.json", "--url", &app.uri(""), "--no-color", "--workers=1", "--seed=1"])
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .args(tags.map_or(OF_USERS.map(|tag| format!("--exclude-tag={tag}")).to_vec(), |tag| {
                vec![format!("--include-tag={tag}")]
            }))
            // Streams do not end.
            .args(["--exclude-path=/v1/messages/{id}/events", "--exclude-path=/v1/inbox/stream"])
            .arg("--exclude-path-regex=^/api/v1/sse/(unread|updates|read-count)/")
            .args(header.map(|header| format!("--header={header}")))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let run = tokio::time::timeout(Duration::from_secs(400), run).await.expect("it should end by itself").unwrap();
        printed = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(run.status.success(), "{printed}");
        let tag_of = |operation: &Value| operation["tags"][0].as_str().unwrap_or_default().to_owned();
        let ours = |operation: &&Value| {
            let is_stream = operation["responses"]["200"]["content"]["text/event-stream"].is_object();
            !is_stream && tags.map_or(!OF_USERS.contains(&&*tag_of(operation)), |tag| tag_of(operation) == tag)
        };
        let all = operations(&document.body).values().flat_map(BTreeMap::values).filter(ours).count();
        assert!(printed.contains(&format!("Tested: {all}\n")), "not all of {all} operations were tried: {printed}");
    }
    assert!(app.count("select count(*) from messages").await > 4, "nothing it posted was taken: {printed}");
    std::fs::remove_dir_all(&folder).unwrap();
    app.done().await;
}
