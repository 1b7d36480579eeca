//! Law L8: a body is read as the document describes it. Each field that the document gives an object is accepted
//! within its limits and refused beyond them, and each name that the document does not give it is refused as unknown:
//! for every body and, of a message, for every channel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::TimeDelta;
use notihub::flow::partner::PartnerChange;
use notihub::limits;
use notihub::model::access::principal::Actor;
use notihub::model::access::role::StaffRole;
use notihub::model::channel::{AddressKind, CHANNELS, Channel};
use serde_json::{Value, json};

use crate::support::app::{Answer, App, named};
use crate::support::vendor::Vendor;

/// Bodies of users. They are asked within a user's own limit of requests, so `user` and `inbox` try them field by
/// field.
const OF_USERS: [&str; 29] = [
    "BackgroundImage",
    "ChatChannelChange",
    "ChatMessageEdit",
    "InboxRead",
    "InboxSeen",
    "Invitation",
    "Login",
    "Logout",
    "MemberChange",
    "NewAttachment",
    "NewChatChannel",
    "NewChatChannelMessage",
    "NewChatContent",
    "NewChatMessage",
    "NewDevice",
    "NewRoom",
    "OwnRoomChange",
    "PartnerUser",
    "PasswordChange",
    "PresenceChange",
    "ProfileChange",
    "ProfileImage",
    "ReadMark",
    "RoomChange",
    "RoomSettingsChange",
    "SignUp",
    "Snooze",
    "UserRefresh",
    "Withdrawal",
];

/// An object that can be posted: where it stands, and what makes the rest of the body right.
struct Place {
    /// The name of its schema.
    schema: String,
    method: &'static str,
    path: String,
    token: String,
    body: Value,
    /// Where the object stands in the body.
    pointer: &'static str,
    /// The channel of an entry of `channels` or `fallback`.
    channel: Option<Channel>,
}

impl Place {
    /// What the door says to the body, with these fields of the object.
    async fn with(&self, app: &App, fields: &[(&str, Value)]) -> Answer {
        let mut body = self.body.clone();
        if self.is_new_partner() {
            // No two share a name.
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            body["name"] = json!(format!("new {}", NEXT.fetch_add(1, Ordering::Relaxed)));
        }
        let object = body.pointer_mut(self.pointer).and_then(Value::as_object_mut).expect("an object");
        object.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        self.post(app, body).await
    }

    async fn post(&self, app: &App, body: Value) -> Answer {
        let answer = app.ask(&self.token, self.method, &self.path, Some(body)).await;
        // A partner may have few endpoints and few jobs: each goes before the next comes.
        let made = |id: &str| answer.body[id].as_str().map(str::to_owned);
        let undo = match (self.path.as_str(), made("endpointId"), made("redriveId")) {
            ("/v1/webhooks", Some(id), _) => Some(("DELETE", format!("/v1/webhooks/{id}"))),
            (_, _, Some(id)) => Some(("POST", format!("/v1/redrives/{id}/cancel"))),
            _ => None,
        };
        if let Some((method, path)) = undo {
            let undone = app.ask(&self.token, method, &path, None).await;
            assert!(undone.status < 300, "{}", undone.text);
        }
        answer
    }

    fn is_new_partner(&self) -> bool {
        self.path == "/v1/partners"
    }

    fn at(&self, field: &str) -> String {
        format!("{}/{field}", self.pointer)
    }
}

/// Places and reasons of what is wrong with a body.
fn faults(answer: &Answer) -> Vec<(String, String)> {
    let text = |fault: &Value, name: &str| fault[name].as_str().unwrap_or_default().to_owned();
    let faults = answer.body["errors"].as_array().into_iter().flatten();
    faults.map(|fault| (text(fault, "pointer"), text(fault, "reason"))).collect()
}

/// The body was read: whatever else the answer is, it is no fault of the body.
fn is_read(answer: &Answer) -> bool {
    answer.status < 500 && !matches!(answer.status, 400 | 422)
}

fn address(channel: Channel) -> &'static str {
    match channel.addressed_by() {
        AddressKind::Mailbox => "kim@example.com",
        AddressKind::Destination => "ops",
        AddressKind::Phone => "010-1234-5678",
        AddressKind::UserKey => "al-2eGuGr5WQOnco1_V-FQ",
        AddressKind::User => "u-1",
        AddressKind::Unserved => panic!("{channel} cannot be posted"),
    }
}

fn postable() -> impl Iterator<Item = Channel> {
    CHANNELS.into_iter().filter(|channel| channel.addressed_by() != AddressKind::Unserved)
}

/// Another channel, addressed in the same way or not.
fn other(channel: Channel) -> Channel {
    if channel == Channel::KakaoAlimtalk { Channel::Sms } else { Channel::KakaoAlimtalk }
}

/// A schema of the document, its reference followed; of one that may be null, what else it may be.
fn schema<'d>(document: &'d Value, of: &'d Value) -> &'d Value {
    if let Some(reference) = of["$ref"].as_str() {
        return schema(document, document.pointer(reference.trim_start_matches('#')).expect(reference));
    }
    match of["oneOf"].as_array().map(Vec::as_slice) {
        Some([one, null]) if null["type"] == "null" => schema(document, one),
        _ => of,
    }
}

fn may_be(schema: &Value, word: &str) -> bool {
    schema["type"] == word || schema["type"].as_array().is_some_and(|types| types.iter().any(|t| t == word))
}

/// The names of the schemas that a schema refers to, by way of others, too.
fn names(document: &Value, of: &Value, found: &mut BTreeSet<String>) {
    match of {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$ref").and_then(|r| r.as_str()?.strip_prefix("#/components/schemas/"))
                && found.insert(name.to_owned())
            {
                names(document, &document["components"]["schemas"][name], found);
            }
            fields.values().for_each(|value| names(document, value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| names(document, item, found)),
        _ => (),
    }
}

/// The schema of an entry of `channels`.
fn schema_of(document: &Value, channel: Channel) -> String {
    let kinds = document["components"]["schemas"]["NewChannel"]["oneOf"].as_array().unwrap();
    let names = kinds.iter().map(|kind| kind["$ref"].as_str().unwrap().rsplit('/').next().unwrap());
    let own = names.filter(|name| {
        let words = &document["components"]["schemas"][*name]["properties"]["channel"]["enum"];
        words.as_array().unwrap().iter().any(|word| word == channel.as_str())
    });
    let own: Vec<&str> = own.collect();
    assert_eq!(own.len(), 1, "{channel} is described so often");
    own[0].to_owned()
}

/// Every object of every body that the document has.
async fn places(app: &App, document: &Value) -> Vec<Place> {
    let (admin, operator) = (app.staff(StaffRole::Admin).await, app.staff(StaffRole::Operator).await);
    let (other_partner, other_key, _) = app.partner(named("other")).await;
    let of_other = format!("/v1/partners/{}", other_partner.partner_id);
    let url = json!({"url": "https://example.com/hook"});
    let endpoint = app.ask(&app.token, "POST", "/v1/webhooks", Some(url.clone())).await.expect(201);
    let endpoint = format!("/v1/webhooks/{}", endpoint.body["endpointId"].as_str().unwrap());
    let since = json!({"since": app.hub.clock.now() - TimeDelta::hours(1)});
    let mut places = Vec::new();
    let mut place = |schema: &str, method, path: String, token: &str, body: Value, pointer, channel| {
        let (schema, token) = (schema.to_owned(), token.to_owned());
        places.push(Place { schema, method, path, token, body, pointer, channel });
    };
    let dry = || "/v1/messages?dryRun=true".to_owned();
    // Each kind of address twice, so that one may be missing.
    let people = json!([{"id": "u-1", "email": "kim@example.com", "phone": "010-1234-5678"},
        {"id": "u-2", "email": "lee@example.com", "phone": "010-1111-2222"}]);
    let message =
        |entry: Value| json!({"type": "A", "title": "t", "body": "b", "recipients": people, "channels": [entry]});
    let mail = || json!({"channel": "EMAIL", "to": "kim@example.com", "subject": "s"});
    place("NewMessage", "POST", dry(), &app.token, message(mail()), "", None);
    place("NewMessage", "POST", "/notifications".into(), &app.token, message(mail()), "", None);
    let batch = json!({"messages": [message(mail())]});
    place("NewBatch", "POST", "/v1/messages/batch".into(), &app.token, batch.clone(), "", None);
    place("NewMessage", "POST", "/v1/messages/batch".into(), &app.token, batch, "/messages/0", None);
    let short =
        json!({"type": "A", "title": "t", "message": "m", "recipient": "kim@example.com", "channels": ["EMAIL"]});
    place("ShortNotification", "POST", "/notifications".into(), &app.token, short, "", None);
    // By both kinds of address, so that both are read.
    let mut to_person = message(json!({"channel": "EMAIL"}));
    to_person["channels"].as_array_mut().unwrap().push(json!({"channel": "SMS"}));
    place("NewRecipient", "POST", dry(), &app.token, to_person, "/recipients/0", None);
    for channel in postable() {
        let entry = |channel: Channel| json!({"channel": channel.as_str(), "to": address(channel)});
        let own = schema_of(document, channel);
        place(&own, "POST", dry(), &app.token, message(entry(channel)), "/channels/0", Some(channel));
        let mut first = entry(other(channel));
        first["fallback"] = json!([entry(channel)]);
        place("NewFallback", "POST", dry(), &app.token, message(first), "/channels/0/fallback/0", Some(channel));
    }
    place("PartnerChange", "POST", "/v1/partners".into(), &admin, json!({"name": "new"}), "", None);
    place("PartnerChange", "PATCH", of_other.clone(), &admin, json!({}), "", None);
    place("Rotation", "POST", format!("{of_other}/key/rotate"), &admin, json!({}), "", None);
    place("Rotation", "POST", format!("/v1/keys/{}/rotate", other_key.client_id), &admin, json!({}), "", None);
    place("NewKey", "POST", "/v1/keys".into(), &admin, json!({"role": "OPERATOR", "name": "n"}), "", None);
    place("NewEndpoint", "POST", "/v1/webhooks".into(), &app.token, url, "", None);
    place("EndpointChange", "PATCH", endpoint.clone(), &app.token, json!({}), "", None);
    place("EndpointRotation", "POST", format!("{endpoint}/rotate"), &app.token, json!({}), "", None);
    let order = json!({"dryRun": true, "filter": {}});
    place("RedriveOrder", "POST", "/v1/dead-letters/redrive".into(), &operator, order.clone(), "", None);
    place("RedriveOrderFilter", "POST", "/v1/dead-letters/redrive".into(), &operator, order, "/filter", None);
    place("RecoverOrder", "POST", format!("{endpoint}/recover"), &app.token, since.clone(), "", None);
    place("ReplayOrder", "POST", format!("{endpoint}/replay"), &app.token, since, "", None);
    let client = json!({"clientId": "c", "clientSecret": "s"});
    place("SignIn", "POST", "/v1/auth/token".into(), "", client, "", None);
    place("Refresh", "POST", "/v1/auth/refresh".into(), "", json!({"refreshToken": "r"}), "", None);
    place("Refresh", "POST", "/v1/auth/revoke".into(), "", json!({"refreshToken": "r"}), "", None);
    places
}

/// Values that a field takes and values that it does not, by its schema. Where a rule of the field is none that a
/// schema can tell, the values are given here.
fn values(app: &App, document: &Value, place: &Place, name: &str) -> (Vec<Value>, Vec<Value>) {
    let now = app.hub.clock.now();
    let of = schema(document, &document["components"]["schemas"][&place.schema]["properties"][name]);
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    // Not needed by all, but here.
    let is_needed = match (name, place.schema.as_str(), place.channel) {
        ("body", "NewMessage", _) | ("title" | "recipient", "ShortNotification", _) => true,
        ("name", "PartnerChange", _) => place.is_new_partner(),
        ("to", "NewFallback", Some(channel)) => other(channel).addressed_by() != channel.addressed_by(),
        _ => false,
    };
    if is_needed {
        // Null is refused.
    } else if may_be(of, "null")
        || document["components"]["schemas"][&place.schema]["properties"][name]["oneOf"].is_array()
    {
        good.push(Value::Null);
    }
    let given: Option<(Vec<Value>, Vec<Value>)> = match (name, place.schema.as_str()) {
        ("name", "PartnerChange") if place.is_new_partner() => {
            Some((vec![json!("p"), json!("q".repeat(64))], vec![json!(""), json!("p".repeat(65))]))
        }
        ("channel", _) => place.channel.map(|channel| (vec![json!(channel.as_str())], vec![json!("FAX")])),
        ("to", "NewFallback") => place.channel.map(|c| (vec![json!(address(c))], vec![json!([address(c)]), json!("")])),
        ("to", _) => place.channel.map(|channel| {
            let to = address(channel);
            (vec![json!(to), json!([to]), json!([to, to])], vec![json!(""), json!({}), json!(["x".repeat(255)])])
        }),
        ("body", _) => place.channel.map(|channel| {
            let most = channel.body_limit().map_or(limits::TEXT_BYTES, |limit| limit.max);
            // What Slack is sent holds the message's title, too.
            let room = if channel == Channel::Slack { 4 } else { 0 };
            let empty = if channel == Channel::Email { (vec![json!("")], vec![]) } else { (vec![], vec![json!("")]) };
            let good = [empty.0, vec![json!("b"), json!("b".repeat(most - room))]].concat();
            (good, [empty.1, vec![json!("b".repeat(most + 1))]].concat())
        }),
        ("subject", "NewFallback") if matches!(place.channel, Some(Channel::Lms | Channel::Mms)) => {
            Some((vec![json!("s"), json!("s".repeat(40))], vec![json!("s".repeat(41))]))
        }
        ("channels", "NewMessage") => {
            let entry = json!({"channel": "SLACK", "to": "ops"});
            let mut bad = vec![json!(vec![entry.clone(); 51])];
            // A notification without a channel is read as the short form.
            bad.extend((place.path != "/notifications").then(|| json!([])));
            Some((vec![json!([entry]), json!(vec![entry; 50])], bad))
        }
        ("channels", "ShortNotification") => {
            let words = |n: usize| json!(vec!["EMAIL"; n]);
            Some((
                vec![json!(["EMAIL"]), json!(["SLACK", "EMAIL"]), words(50)],
                vec![json!([]), json!(["SMS"]), words(51)],
            ))
        }
        ("channels", "PartnerChange") => {
            Some((vec![json!(["EMAIL"]), json!([])], vec![json!(["FAX"]), json!("EMAIL")]))
        }
        ("capabilities", _) => Some((vec![json!(["schedule", "webhook_content"]), json!([])], vec![json!(["x"])])),
        ("recipients", _) => {
            Some((vec![json!([]), json!([{"email": "kim@example.com"}])], vec![json!([1]), json!({})]))
        }
        ("messages", _) => {
            let message = json!({"type": "A", "body": "b", "channels": [{"channel": "SLACK", "to": "ops"}]});
            Some((vec![json!([message]), json!([message, message])], vec![json!([]), json!(vec![message; 1001])]))
        }
        ("scheduledAt" | "expiresAt", _) => {
            Some((vec![json!(now + TimeDelta::hours(2))], vec![json!("2027-03-05"), json!("x"), json!(5)]))
        }
        ("since" | "until", _) => Some((vec![json!(now - TimeDelta::minutes(5))], vec![json!("2027-03-05"), json!(5)])),
        ("metadata", _) => {
            Some((vec![json!({}), json!({"a": 1.5, "b": null, "c": "x"})], vec![json!([]), json!({"": 1})]))
        }
        ("fallback", _) => {
            let to = json!({"channel": "NAVER_TALK", "to": "al-2eG"});
            let by = match place.channel {
                Some(Channel::NaverTalk) => vec![json!({"channel": "EMAIL", "to": "kim@example.com"})],
                _ => vec![to],
            };
            Some((vec![json!([]), json!(by)], vec![json!({}), json!(vec![by[0].clone(); 3])]))
        }
        ("blocks", _) => {
            let block = json!({"type": "divider"});
            Some((vec![json!([]), json!(vec![block.clone(); 50])], vec![json!(vec![block; 51]), json!([{"x": 1}])]))
        }
        ("email" | "recipient" | "contactEmail", _) => {
            let most = format!("{}@{}.example.com", "k".repeat(60), "e".repeat(60));
            Some((vec![json!("kim@example.com"), json!(most)], vec![json!(""), json!("x".repeat(255)), json!(7)]))
        }
        ("phone", _) => {
            let long = |chars: usize| json!(format!("010{}1234 5678", " ".repeat(chars - 12)));
            let most = limits::PHONE_CHARS;
            Some((vec![json!("010-1234-5678"), long(most)], vec![json!(""), long(most + 1)]))
        }
        ("type", _) => {
            Some((vec![json!("A"), json!("a_B-9.:".repeat(9))], vec![json!(""), json!("a b"), json!("A".repeat(65))]))
        }
        ("status", "PartnerChange") => {
            Some((vec![json!("ACTIVE"), json!("INACTIVE")], vec![json!("PAUSED"), json!(1)]))
        }
        ("status", "EndpointChange") => {
            Some((vec![json!("PAUSED"), json!("ACTIVE")], vec![json!("DISABLED"), json!(1)]))
        }
        ("status", _) => Some((vec![json!("FAILED"), json!("UNDETERMINED")], vec![json!("SENT"), json!(1)])),
        ("role", _) => Some((vec![json!("OPERATOR"), json!("ADMIN")], vec![json!("PARTNER"), json!("X")])),
        ("region", _) => Some((vec![json!("KR"), json!("US")], vec![json!("kr"), json!("KOR"), json!("K")])),
        ("timeZone", _) if place.method == "POST" => Some((vec![json!("Asia/Seoul")], vec![json!(""), json!(1)])),
        // Of the change of a partner: read, and refused for what it is.
        ("timeZone", _) => {
            good.clear();
            Some((vec![], vec![json!("Asia/Seoul")]))
        }
        ("url", _) => {
            Some((vec![json!("https://example.com/other")], vec![json!(""), json!("x".repeat(2049)), json!("ftp://x")]))
        }
        ("actionUrl" | "imageUrl", _) => {
            let most = format!("https://example.com/{}", "x".repeat(limits::LINK_CHARS - 20));
            let more = format!("{most}x");
            Some((vec![json!("https://example.com/1"), json!(most)], vec![json!(""), json!(more), json!("ftp://x/")]))
        }
        ("headers", _) => {
            let most = "v".repeat(limits::ENDPOINT_HEADER_VALUE_BYTES);
            let more = format!("{most}v");
            Some((
                vec![json!({}), json!({"X-A": "v", "X-B": most})],
                vec![json!({"X-A": more}), json!({"X-A": ""}), json!([])],
            ))
        }
        ("events", _) => Some((vec![json!(["delivery.sent"])], vec![json!(["endpoint.test"]), json!("x")])),
        ("partnerId" | "endpointId", _) => {
            Some((vec![json!("0123456789ABC")], vec![json!("x"), json!("8123456789ABC")]))
        }
        ("filter", _) => Some((vec![json!({})], vec![json!([]), json!({"x": 1})])),
        // Secrets are right or wrong, and what is too long for one is wrong.
        ("clientId" | "clientSecret" | "refreshToken", _) => {
            let most = usize::try_from(of["maxLength"].as_u64().unwrap()).unwrap();
            Some((vec![json!("x"), json!("x".repeat(most))], vec![json!(""), json!("x".repeat(257)), json!(1)]))
        }
        _ => None,
    };
    if let Some((more_good, more_bad)) = given {
        good.extend(more_good);
        bad.extend(more_bad);
        return (good, bad);
    }
    if let Some(words) = of["enum"].as_array() {
        good.extend(words.iter().cloned());
        bad.push(json!("NONE_OF_THEM"));
    } else if may_be(of, "string") {
        let length = |name: &str| usize::try_from(of[name].as_u64().unwrap_or_else(|| panic!("{name}: {of}"))).unwrap();
        let (least, most) = (length("minLength"), length("maxLength"));
        good.extend([json!("x".repeat(least)), json!("x".repeat(most))]);
        bad.extend([json!("x".repeat(most + 1)), json!(1)]);
        bad.extend((least > 0).then(|| json!("")));
    } else if may_be(of, "integer") {
        let bound = |name: &str| of[name].as_i64().unwrap_or_else(|| panic!("{name}: {of}"));
        let (least, most) = (bound("minimum"), bound("maximum"));
        good.extend([json!(least), json!(most)]);
        bad.extend([json!(least - 1), json!(most + 1), json!(1.5), json!("1")]);
    } else if may_be(of, "boolean") {
        good.extend([json!(true), json!(false)]);
        bad.extend([json!("true"), json!(0)]);
    } else {
        panic!("{}.{name}: say above which values it takes", place.schema);
    }
    (good, bad)
}

/// The content fields that a fallback of this channel does not have, though the form of fallbacks has them for others.
fn is_other_channels(document: &Value, place: &Place, name: &str) -> bool {
    let content = matches!(
        name,
        "subject" | "html" | "blocks" | "templateCode" | "actionUrl" | "imageUrl" | "category" | "severity"
    );
    let own = |channel| document["components"]["schemas"][schema_of(document, channel)]["properties"][name].is_object();
    place.schema == "NewFallback" && content && !place.channel.is_some_and(own)
}

/// L8: each object takes the fields that the document gives it, within the limits that the document gives them, and no
/// others.
#[tokio::test]
async fn body_is_read_as_described() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    let permitted = PartnerChange { may_receive_content: Some(true), ..PartnerChange::default() };
    let admin = Actor::local_admin("test".into());
    let permit = admin.admin_permit().unwrap();
    notihub::flow::partner::update(&app.hub, permit, app.partner.partner_id, permitted).await.unwrap();
    let document = app.get("/openapi.json").await.expect(200).body;
    let places = places(&app, &document).await;

    let schemas = document["components"]["schemas"].as_object().unwrap();
    let bodies = document["paths"].as_object().unwrap().values().flat_map(|of| of.as_object().unwrap().values());
    let mut described = BTreeSet::new();
    bodies.for_each(|of| names(&document, &of["requestBody"], &mut described));
    described.retain(|name| schemas[name]["additionalProperties"] == false);
    for name in OF_USERS {
        assert!(described.remove(name), "{name} is no body any more");
    }
    let tried: BTreeSet<String> = places.iter().map(|place| place.schema.clone()).collect();
    assert_eq!(tried, described, "objects that are tried here on the left, objects that bodies have on the right");

    let all: BTreeSet<&str> = tried
        .iter()
        .flat_map(|name| schemas[name]["properties"].as_object().unwrap().keys().map(String::as_str))
        .collect();
    let reserved = ["template", "locale", "variables", "nonsense"];
    assert!(all.len() > 40 && reserved.iter().all(|name| !all.contains(name)), "{all:?}");
    let mut wrong = Vec::new();
    for place in &places {
        let own = schemas[&place.schema]["properties"].as_object().unwrap();
        let output = format!("{} at {} {}{:?}", place.schema, place.method, place.path, place.channel);
        let base = place.with(&app, &[]).await;
        if !is_read(&base) {
            wrong.push(format!("{output} does not take {}: {}", place.body, base.text));
            continue;
        }
        let is_own = |name: &&str| own.contains_key(*name) && !is_other_channels(&document, place, name);
        let foreign: Vec<(&str, Value)> =
            all.iter().chain(&reserved).filter(|name| !is_own(name)).map(|name| (*name, json!(1))).collect();
        // At most as many at once as an answer lists.
        for foreign in foreign.chunks(limits::FAULTS / 2) {
            let answer = place.with(&app, foreign).await;
            let found: BTreeMap<String, String> = faults(&answer).into_iter().collect();
            for (name, _) in foreign {
                let reason = found.get(&place.at(name)).map(String::as_str);
                if !matches!(reason, Some("unknown_field" | "not_supported")) {
                    let text = &answer.text;
                    wrong.push(format!("{output} reads '{name}', which the document does not give it: {text}"));
                }
            }
        }
        for name in own.keys().map(String::as_str).filter(is_own) {
            let (good, bad) = values(&app, &document, place, name);
            for value in good {
                let short: String = value.to_string().chars().take(80).collect();
                let answer = place.with(&app, &[(name, value)]).await;
                if !is_read(&answer) {
                    wrong.push(format!("{output} does not take {name}: {short}, {}", answer.text));
                }
            }
            for value in bad {
                let short: String = value.to_string().chars().take(80).collect();
                let answer = place.with(&app, &[(name, value)]).await;
                let place = place.at(name);
                let shown = faults(&answer).iter().any(|(at, _)| *at == place || at.starts_with(&format!("{place}/")));
                if is_read(&answer) || !shown {
                    wrong.push(format!("{output} takes {name}: {short}, {} {}", answer.status, answer.text));
                }
            }
        }
        let examples = |of: &str| schemas[of]["examples"].as_array().cloned().unwrap_or_default();
        let mut examples = [
            examples(&place.schema),
            if place.schema == "ShortNotification" { examples("NewNotification") } else { vec![] },
        ]
        .concat();
        examples.retain(|_| place.pointer.is_empty());
        for example in examples {
            let answer = place.post(&app, example.clone()).await;
            if answer.status >= 300 {
                wrong.push(format!("{output} does not take its example {example}: {}", answer.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    app.done().await;
}

/// What the document says of a channel in words has the limits that the reader has: F1 was a document that knew two
/// channels of nine.
#[tokio::test]
async fn document_has_the_limits_of_every_channel() {
    let app = App::new().await;
    let document = app.get("/openapi.json").await.expect(200).body;
    let mut longest: BTreeMap<String, usize> = BTreeMap::new();
    for channel in postable() {
        let name = schema_of(&document, channel);
        let most = channel.body_limit().map_or(limits::TEXT_BYTES, |limit| limit.max);
        let known = longest.entry(name.clone()).or_default();
        *known = (*known).max(most);
        let shown = document["components"]["schemas"][&name]["description"].as_str().unwrap();
        let written = if most < 1000 { most.to_string() } else { format!("{},{:03}", most / 1000, most % 1000) };
        let is_told = !matches!(channel, Channel::Email | Channel::Slack);
        assert!(!is_told || shown.contains(&written), "{channel}: {written} is not in '{shown}'");
    }
    for (name, most) in longest {
        let body = &document["components"]["schemas"][&name]["properties"]["body"];
        assert_eq!(body["maxLength"], most, "{name}");
    }
    app.done().await;
}
