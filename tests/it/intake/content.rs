//! Contents: each type of message takes what its limits allow, in its unit.

use std::io::Write as _;
use std::process::{Command, Stdio};

use notihub::model::channel::{Channel, TEXT_CHANNELS};
use notihub::model::cp949;
use serde_json::{Value, json};

use crate::intake::{KIM, MOCKED, Strict, sms_to};
use crate::support::app::{App, settings};

fn text(channel: &str, body: &str) -> Value {
    let to = if channel == "NAVER_TALK" { "al-2eGuGr5WQOnco1_V-FQ" } else { KIM };
    json!({"type": "TEST", "channels": [{"channel": channel, "to": to, "body": body}]})
}

/// S0-5, S0-16, S0-17, S0-18, S0-19, S0-20, S0-21, S0-22, S0-70, S3-26: each type takes as much as the seed says, in
/// its unit, and is delivered by the mock; one more is E006 with length, limit and unit, and for SMS says that LMS
/// would do.
#[tokio::test]
async fn content_at_its_limit_is_accepted_and_one_more_refused() {
    let app = App::with(&[MOCKED]).await;
    let mut sent = 0;
    for (channel, max, in_bytes) in [
        ("SMS", 90, true),
        ("LMS", 4000, true),
        ("MMS", 2000, true),
        ("RCS", 1300, true),
        ("KAKAO_ALIMTALK", 1000, false),
        ("KAKAO_BRAND_MESSAGE", 1400, false),
        ("NAVER_TALK", 1000, false),
    ] {
        // Each piece is two bytes of CP949, or with the one beside it.
        let full: [String; 5] = if in_bytes {
            let half = max / 2;
            [
                "a".repeat(max),
                "가".repeat(half),
                "똠".repeat(half),
                "가a\n€".repeat(max / 6) + &"x".repeat(max % 6),
                "★".repeat(half - 1) + "ab",
            ]
        } else {
            ["a", "가", "똠", "—", "😀"].map(|piece| piece.repeat(max))
        };
        for body in full {
            let id = app.post("/v1/messages", text(channel, &body)).await.expect(202).id();
            app.work().await;
            let message = app.message(&id).await;
            let delivery = &message["deliveries"][0];
            assert_eq!((&delivery["status"], &delivery["provider"]), (&json!("SENT"), &json!("mock")), "{channel}");
            assert_eq!(message["contents"][0]["body"], body);
            sent += 1;

            let over = app.post("/v1/messages", text(channel, &(body + "z"))).await.refused(422, "content_too_long");
            let (unit, encoding) = if in_bytes { ("bytes", " as CP949") } else { ("characters", "") };
            let hint = if channel == "SMS" { "; it would fit as LMS (4000 bytes)" } else { "" };
            let length = max + 1;
            let detail = format!("is {length} {unit} long{encoding}; the limit of {channel} is {max} {unit}{hint}");
            assert_eq!(over.body["code"], "E006");
            assert_eq!(
                over.body["errors"],
                json!([{"pointer": "/channels/0/body", "reason": "content_too_long", "detail": detail}])
            );
        }
    }
    for (body, length) in [("가".repeat(2000) + "a", 4001), ("a".repeat(200_000), 200_000)] {
        let over = app.post("/v1/messages", text("SMS", &body)).await.refused(422, "content_too_long");
        let detail = format!("/channels/0/body is {length} bytes long as CP949; the limit of SMS is 90 bytes");
        assert_eq!(over.body["detail"], detail, "what is too long for LMS as well is not sent there");
    }
    assert_eq!(app.count("select count(*) from deliveries").await, sent, "what was refused is nowhere");
    app.done().await;
}

/// S0-16, S0-17, S0-18, S0-22: a character outside CP949 is not sent as a question mark, but refused by name; types
/// that count characters accept it.
#[tokio::test]
async fn content_with_characters_outside_cp949_is_refused_by_name() {
    let app = App::with(&[MOCKED]).await;
    for (body, shown) in [
        ("할인 😀 😀", "'😀' U+1F600"),
        ("₩1,000 – café", "'₩' U+20A9, '–' U+2013, 'é' U+00E9"),
        ("a\u{200b}b", "'\\u{200b}' U+200B"),
        ("\u{1112}x\u{11ab}", "'ᄒ' U+1112, 'ᆫ' U+11AB"),
        ("©ñüäöß", "'©' U+00A9, 'ñ' U+00F1, 'ü' U+00FC, 'ä' U+00E4, 'ö' U+00F6"),
        ("©ñüäöç", "'©' U+00A9, 'ñ' U+00F1, 'ü' U+00FC, 'ä' U+00E4, 'ö' U+00F6 and others"),
    ] {
        for channel in ["SMS", "LMS", "MMS", "RCS"] {
            let refused = app.post("/v1/messages", text(channel, body)).await.refused(422, "unmappable_character");
            assert_eq!(refused.body["code"], "E001");
            let detail = format!("has characters that {channel} cannot carry because CP949 lacks them: {shown}");
            assert_eq!(refused.body["errors"][0]["detail"], detail);
            assert_eq!(refused.body["errors"][0]["pointer"], "/channels/0/body");
        }
        for channel in ["KAKAO_ALIMTALK", "KAKAO_BRAND_MESSAGE", "NAVER_TALK"] {
            app.post("/v1/messages", text(channel, body)).await.expect(202);
        }
    }
    app.settle_all().await;
    app.done().await;
}

/// C8, S0-17, S0-18: the seed's number is the ceiling. The lower limit of a provider applies at intake, and is named in
/// the hint for SMS as well; the higher limit of a provider changes nothing.
#[tokio::test]
async fn content_limit_of_a_provider_is_the_lower_one() {
    let app = App::with_provider(&[MOCKED], Strict::new(Channel::Lms, Some(2000))).await;
    let refused = async |channel: &str, length: usize| {
        let answer =
            app.post("/v1/messages", text(channel, &"a".repeat(length))).await.refused(422, "content_too_long");
        answer.body["errors"][0]["detail"].as_str().unwrap().to_owned()
    };
    assert_eq!(refused("LMS", 2001).await, "is 2001 bytes long as CP949; the limit of LMS is 2000 bytes");
    assert_eq!(refused("MMS", 2001).await, "is 2001 bytes long as CP949; the limit of MMS is 2000 bytes");
    let hint = "is 2000 bytes long as CP949; the limit of SMS is 90 bytes; it would fit as LMS (2000 bytes)";
    assert_eq!(refused("SMS", 2000).await, hint);
    assert_eq!(refused("SMS", 2001).await, "is 2001 bytes long as CP949; the limit of SMS is 90 bytes");
    for channel in ["LMS", "MMS"] {
        app.post("/v1/messages", text(channel, &"가".repeat(1000))).await.expect(202);
    }
    app.settle_all().await;
    app.done().await;

    let generous = App::with_provider(&[], Strict::new(Channel::Mms, Some(9000))).await;
    generous.post("/v1/messages", text("MMS", &"a".repeat(2000))).await.expect(202);
    generous.post("/v1/messages", text("MMS", &"a".repeat(2001))).await.refused(422, "content_too_long");
    generous.settle_all().await;
    generous.done().await;
}

/// S0-16, S0-17, S0-19: a dry run tells how long each content is for each channel that it goes out over, in its unit.
#[tokio::test]
async fn content_lengths_are_in_the_dry_run() {
    let app = App::with(&[MOCKED]).await;
    let body = json!({"type": "TEST", "body": "주문 완료: A-1", "channels": [
        {"channel": "SMS", "to": [KIM, "+821012345678", "010-9999-8888"]},
        {"channel": "RCS", "to": KIM},
        {"channel": "KAKAO_ALIMTALK", "to": KIM, "body": "안녕 😀"},
        {"channel": "EMAIL", "to": "kim@b.kr", "subject": "s"},
    ]});
    let dry = app.post("/v1/messages?dryRun=true", body).await.expect(200);
    assert_eq!(
        dry.body["contents"],
        json!([
            {"parts": 1, "bytes": 18, "subject": null, "body": "주문 완료: A-1", "lengths": [
                {"channel": "SMS", "length": 14, "limit": 90, "unit": "bytes"},
                {"channel": "RCS", "length": 14, "limit": 1300, "unit": "bytes"}]},
            {"parts": 1, "bytes": 11, "subject": null, "body": "안녕 😀", "lengths": [
                {"channel": "KAKAO_ALIMTALK", "length": 4, "limit": 1000, "unit": "characters"}]},
            {"parts": 1, "bytes": 19, "subject": "s", "body": "주문 완료: A-1", "lengths": []},
        ])
    );
    let first = &dry.body["deliveries"][0];
    assert_eq!((&first["to"], &first["recipient"]), (&json!(KIM), &json!("+821012345678")));
    assert_eq!(dry.body["deliveries"].as_array().unwrap().len(), 5, "the same number in two forms is one recipient");
    app.post("/v1/messages?dryRun=true", text("SMS", &"가".repeat(46))).await.refused(422, "content_too_long");
    assert_eq!(app.count("select count(*) from messages").await, 0);
    app.done().await;
}

/// S0-16, S0-17, S0-70: a batch is taken whole or not at all, and each fault names its message.
#[tokio::test]
async fn batch_of_texts_is_accepted_whole_or_refused() {
    let app = App::with(&[MOCKED]).await;
    let good = || text("SMS", &"가".repeat(45));
    let bad = json!({"messages": [good(), text("SMS", &"가".repeat(46)), text("LMS", "😀"), sms_to(json!("110"))]});
    let refused = app.post("/v1/messages/batch", bad).await.refused(422, "content_too_long");
    let shown: Vec<(&str, &str)> = refused.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["pointer"].as_str().unwrap(), e["reason"].as_str().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            ("/messages/1/channels/0/body", "content_too_long"),
            ("/messages/2/channels/0/body", "unmappable_character"),
            ("/messages/3/channels/0/to", "phone_invalid"),
        ]
    );
    assert_eq!(app.count("select count(*) from messages").await, 0);
    let taken = app.post("/v1/messages/batch", json!({"messages": [good(), text("RCS", "b")]})).await.expect(202);
    assert_eq!(taken.body["messages"][1]["deliveries"][0]["to"], KIM);
    app.settle_all().await;
    assert_eq!(app.count("select count(*) from deliveries where status = 'SENT' and written is not null").await, 2);
    app.done().await;
}

/// S0-17, S0-18, S0-19, S0-20: subjects of LMS and MMS, template codes of Kakao; each is refused where it means
/// nothing.
#[tokio::test]
async fn content_subject_and_template_code_are_refused_where_meaningless() {
    let provider = Strict::new(Channel::KakaoAlimtalk, None);
    let app = App::with_provider(&[MOCKED], provider.clone()).await;
    let with = |channel: &str, field: &str, value: &str| {
        let mut body = text(channel, "b");
        body["channels"][0][field] = json!(value);
        body
    };
    for channel in ["LMS", "MMS"] {
        let id = app.post("/v1/messages", with(channel, "subject", &"가".repeat(20))).await.expect(202).id();
        assert_eq!(app.message(&id).await["contents"][0]["subject"], "가".repeat(20));
        app.post("/v1/messages", text(channel, "no subject")).await.expect(202);
        let over = app.post("/v1/messages", with(channel, "subject", &("가".repeat(20) + "a"))).await;
        let over = over.refused(422, "content_too_long");
        let detail = format!("is 41 bytes long as CP949; the limit of the subject of {channel} is 40 bytes");
        assert_eq!(over.body["errors"][0]["detail"], detail);
        assert_eq!(
            (&over.body["code"], &over.body["errors"][0]["pointer"]),
            (&json!("E006"), &json!("/channels/0/subject"))
        );
        app.post("/v1/messages", with(channel, "subject", "🎁")).await.refused(422, "unmappable_character");
        // The message's title is the subject of a channel that has none.
        let mut titled = text(channel, "b");
        titled["title"] = json!("제목");
        let id = app.post("/v1/messages", titled.clone()).await.expect(202).id();
        assert_eq!(app.message(&id).await["contents"][0]["subject"], "제목");
        titled["title"] = json!("제목".repeat(11));
        app.post("/v1/messages", titled).await.refused(422, "content_too_long");
    }
    for channel in ["SMS", "RCS", "NAVER_TALK", "KAKAO_ALIMTALK", "KAKAO_BRAND_MESSAGE"] {
        app.post("/v1/messages", with(channel, "subject", "s")).await.refused(422, "unknown_field");
        let mut titled = text(channel, "b");
        titled["title"] = json!("a title for other channels 🎁");
        app.post("/v1/messages", titled).await.expect(202);
    }
    for channel in ["SMS", "LMS", "MMS", "RCS", "NAVER_TALK"] {
        app.post("/v1/messages", with(channel, "templateCode", "T1")).await.refused(422, "unknown_field");
    }
    app.settle_all().await;
    provider.got.lock().unwrap().clear();
    for channel in ["KAKAO_ALIMTALK", "KAKAO_BRAND_MESSAGE"] {
        let id = app.post("/v1/messages", with(channel, "templateCode", "ORDER_01")).await.expect(202).id();
        app.work().await;
        assert_eq!(app.message(&id).await["contents"][0]["templateCode"], "ORDER_01");
        let long = with(channel, "templateCode", &"T".repeat(65));
        app.post("/v1/messages", long).await.refused(422, "content_too_long");
    }
    assert_eq!(
        *provider.got.lock().unwrap(),
        [("+821012345678".to_owned(), json!({"body": "b", "templateCode": "ORDER_01"}))]
    );
    for field in ["template", "variables"] {
        app.post("/v1/messages", with("KAKAO_ALIMTALK", field, "x")).await.refused(422, "not_supported");
    }
    app.done().await;
}

/// S0-5: a mock for each channel that is asked for, and for no other; it can be made to fail.
#[tokio::test]
async fn mock_is_set_by_channel() {
    assert_eq!(settings(&["--mock=SMS,NAVER_TALK"]).channels.mock, [Channel::Sms, Channel::NaverTalk]);
    let app = App::with(&["--mock=SMS"]).await;
    let refused = app.post("/v1/messages", text("LMS", "b")).await.refused(400, "channel_unavailable");
    assert_eq!(refused.body["code"], "E005");
    let to = async |to: &str| app.post("/v1/messages", sms_to(json!(to))).await.expect(202).id();
    let (fails, later) = (to("010-0000-0001").await, to("010-0000-0002").await);
    app.settle_all().await;
    let attempts = async |id: &str| app.message(id).await["deliveries"][0]["attempts"].as_array().unwrap().clone();
    let fails = attempts(&fails).await;
    assert_eq!((fails.len(), &fails[0]["errorCode"]), (1, &json!("mock_refused")));
    let later = attempts(&later).await;
    assert_eq!((later.len(), &later[2]["errorCode"]), (3, &json!("mock_unavailable")));
    app.done().await;
}

/// Every code point that is not a surrogate, by itself, and mixed texts of all kinds: each is as long as Python's codec
/// makes it, and unmappable where the codec cannot encode it.
const PEER: &str = r#"
import json, sys
texts = json.load(sys.stdin)
def length(text):
    try:
        return len(text.encode('cp949'))
    except UnicodeEncodeError:
        seen = []
        for c in text:
            try:
                c.encode('cp949')
            except UnicodeEncodeError:
                if c not in seen:
                    seen.append(c)
        return ''.join(seen)
single = [length(chr(c)) for c in range(0x110000) if not 0xd800 <= c < 0xe000]
json.dump({'single': [n if isinstance(n, int) else 0 for n in single], 'texts': [length(t) for t in texts]}, sys.stdout)
"#;

/// S0-16, S0-17, S0-18, S0-22: bytes are those of CP949 as Python's independent codec has it, on every code point and
/// on mixtures.
#[test]
fn content_length_equals_an_independent_codecs() {
    let texts = mixtures();
    let python = ["python3", "/usr/bin/python3"];
    let found = python.into_iter().find(|p| Command::new(p).args(["-c", ""]).status().is_ok());
    let mut peer = Command::new(found.expect("this test needs Python 3"))
        .args(["-c", PEER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    peer.stdin.take().unwrap().write_all(json!(texts).to_string().as_bytes()).unwrap();
    let output = peer.wait_with_output().unwrap();
    assert!(output.status.success());
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();

    let mut encodable = 0;
    let scalars = ('\0'..=char::MAX).zip(printed["single"].as_array().unwrap());
    let mut differ = Vec::new();
    for (c, peer) in scalars {
        let ours = cp949::length(&c.to_string());
        encodable += usize::from(ours.is_ok());
        let same = match &ours {
            Ok(length) => peer.as_u64() == Some(*length as u64),
            Err(unmappable) => *peer == 0 && *unmappable == [c],
        };
        if !same {
            differ.push(format!("U+{:04X}: {ours:?}, Python {peer}", u32::from(c)));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert_eq!(printed["single"].as_array().unwrap().len(), 0x11_0000 - 0x800);
    assert_eq!(encodable, 17_176, "ASCII and the 17,048 of the code page");
    for (text, peer) in texts.iter().zip(printed["texts"].as_array().unwrap()) {
        match cp949::length(text) {
            Ok(length) => assert_eq!(*peer, json!(length), "{text:?}"),
            Err(unmappable) => {
                let theirs: Vec<char> = peer.as_str().unwrap_or_default().chars().take(64).collect();
                assert_eq!(unmappable, theirs, "{text:?}");
            }
        }
    }
}

/// Texts of up to 9,000 characters out of all kinds, the same at each run; half of them can be sent.
fn mixtures() -> Vec<String> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    let all: Vec<char> = ('\0'..=char::MAX).collect();
    let sendable: Vec<char> = all.iter().copied().filter(|c| cp949::length(&c.to_string()).is_ok()).collect();
    let hangul: Vec<char> = ('가'..='힣').collect();
    (0..400)
        .map(|n| {
            let length = 1 + next(if n % 20 < 2 { 9_000 } else { 120 });
            let one = |_| {
                let kind = next(if n % 2 == 0 { 10 } else { 9 });
                let from: &[char] = match kind {
                    0..3 => &all[..0x80],
                    3..6 => &hangul,
                    6..9 => &sendable,
                    _ => &all,
                };
                from[next(from.len())]
            };
            (0..length).map(one).collect()
        })
        .collect()
}

/// F4: a text is counted, checked, compared, shown and sent in one form, whatever machine wrote it, over every way in.
#[tokio::test]
async fn content_text_has_one_form() {
    let app = App::with(&["--mock=SMS", "--mock=LMS"]).await;
    // 45 syllables, 90 bytes of CP949: as a Mac writes them, 135 characters that CP949 does not have.
    let (apart, whole) = ("\u{1112}\u{1161}\u{11ab}".repeat(44) + "\r\n", "한".repeat(44) + "\n");
    let body = |title: &str, text: &str| {
        json!({"type": "A", "clientMsgId": "k", "title": title, "body": text,
            "metadata": {"name": "\u{1112}\u{1161}\u{11ab}\r\n"},
            "channels": [{"channel": "SMS", "to": "010-1234-5678"}, {"channel": "LMS", "to": "010-1234-5678"},
                {"channel": "EMAIL", "to": "kim@example.com", "html": "<\u{338}\r\n"}]})
    };
    let dry = app.post("/v1/messages?dryRun=true", body("제목", &apart)).await.expect(200).body;
    assert_eq!(dry["contents"][0]["lengths"][0]["length"], 89, "{dry:#}");
    let first = app.post("/v1/messages", body("\u{110c}\u{1166}\u{1106}\u{1169}\u{11a8}", &apart)).await.expect(202);
    let again = app.post("/v1/messages", body("제목", &whole)).await.expect(200);
    assert_eq!(again.id(), first.id());
    let shown = app.message(&first.id()).await;
    assert_eq!((&shown["title"], &shown["contents"][0]["body"]), (&json!("제목"), &json!(whole)));
    assert_eq!(shown["metadata"]["name"], "\u{1112}\u{1161}\u{11ab}\r\n", "data stays as it was posted");
    assert_eq!(shown["contents"][2]["html"], "<\u{338}\r\n", "NFC would make another sign of the bracket");
    app.work().await;
    let mail = &app.smtp.records()[0].data;
    let (encoded, apart) = (|text: &str| data_encoding::BASE64.encode(text.as_bytes()), &apart);
    assert!(mail.contains(&encoded("제목")) && !mail.contains(&encoded(apart)[..40]), "{mail}");
    let mut sms =
        json!({"type": "A", "body": "\u{212b}\u{f92c}", "channels": [{"channel": "SMS", "to": "010-1234-5678"}]});
    app.post("/v1/messages", sms.clone()).await.expect(202);
    for (text, named) in [("a\u{a0}b", "U+00A0"), ("a\u{200b}b", "U+200B"), ("cafe\u{301}", "U+00E9")] {
        sms["body"] = json!(text);
        let refused = app.post("/v1/messages", sms.clone()).await.refused(422, "unmappable_character");
        assert!(refused.text.contains(named), "{}", refused.text);
    }
    app.done().await;
}

/// B6: an e-mail with a subject may have an empty body; elsewhere a text that shows nothing is refused, over every way
/// in.
#[tokio::test]
async fn content_body_empty_is_accepted_for_mail_alone() {
    let app = App::with(&[MOCKED]).await;
    let mail = |body: &str| {
        json!({"type": "A", "title": "All is said", "channels": [{"channel": "EMAIL",
        "to": "kim@example.com", "body": body}]})
    };
    for body in ["", "  \n", "\u{200b}"] {
        app.post("/v1/messages?dryRun=true", mail(body)).await.expect(200);
        let mut without_subject = mail(body);
        without_subject.as_object_mut().unwrap().remove("title");
        app.post("/v1/messages", without_subject).await.refused(422, "required");
        for channel in TEXT_CHANNELS.iter().map(|c| c.as_str()).chain(["SLACK"]) {
            let to = match channel {
                "SLACK" => "ops",
                "NAVER_TALK" => "key",
                _ => "010-1234-5678",
            };
            let own = json!({"type": "A", "channels": [{"channel": channel, "to": to, "body": body}]});
            let common = json!({"type": "A", "title": "t", "body": body, "channels": [{"channel": channel, "to": to}]});
            for post in [own, common] {
                for path in ["/v1/messages", "/v1/messages?dryRun=true"] {
                    let refused = app.post(path, post.clone()).await.refused(422, "empty");
                    assert_eq!(refused.body["errors"][0]["pointer"], "/channels/0/body");
                }
                app.post("/v1/messages/batch", json!({"messages": [post]})).await.refused(422, "empty");
            }
        }
    }
    let mut beside = mail("");
    beside["channels"][0]["fallback"] = json!([{"channel": "SMS", "to": "010-1234-5678", "body": ""}]);
    app.post("/v1/messages", beside).await.refused(422, "empty");
    let short =
        json!({"type": "A", "title": "t", "message": "", "recipient": "lee@example.com", "channels": ["EMAIL"]});
    app.post("/notifications", short).await.expect(202);
    app.post("/v1/messages", mail("")).await.expect(202);
    app.work().await;
    let mails = app.smtp.records();
    assert_eq!(mails.len(), 2);
    for mail in mails {
        assert!(mail.data.split_once("\r\n\r\n").is_some_and(|(_, body)| body.trim().is_empty()), "{}", mail.data);
    }
    app.done().await;
}
