//! E-mail and Slack against independent servers: aiosmtpd (STARTTLS, implicit TLS, authentication) and Python's own
//! HTTPS server. Python's e-mail parser decodes what arrived, and the test compares it with what was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use notihub::id::Tsid;
use notihub::model::delivery::{DeliveryKey, Outcome};
use notihub::model::message::Content;
use notihub::model::retry::ErrorClass;
use notihub::provider::http::{ClientSettings, ConnectionPolicy};
use notihub::provider::slack::{Slack, SlackSettings};
use notihub::provider::smtp::{Smtp, SmtpSettings, Tls};
use notihub::provider::{Extra, Provider as _, SendRequest};
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};

use crate::support::smtp::{BUDGET, Peer, header};

fn content(subject: &str, body: &str, html: Option<&str>) -> Content {
    let html = html.map(str::to_owned);
    Content { subject: Some(subject.to_owned()), body: body.to_owned(), html, ..Content::default() }
}

fn letter<'a>(to: &'a str, content: &'a Content, no: i16) -> SendRequest<'a> {
    SendRequest {
        channel: notihub::model::channel::Channel::Email,
        key: DeliveryKey { shard: 0, message_id: Tsid(700_000_000_000_000_000), no },
        attempt: 1,
        kind: "ORDER_COMPLETED",
        to,
        content,
        created_at: chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        extra: Extra::Nothing,
    }
}

async fn send(smtp: &Smtp, to: &str) -> Outcome {
    smtp.send(letter(to, &content("x", "y", None), 1)).await
}

#[track_caller]
fn accepted(outcome: Outcome) {
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
}

#[track_caller]
fn rejected(outcome: Outcome) -> (ErrorClass, String) {
    match outcome {
        Outcome::Rejected { class, code, .. } => (class, code),
        other => panic!("expected a rejection, got {other:?}"),
    }
}

/// Line ends as they were written, and the one that ends every mail.
fn text(mail: &Value, part: &str) -> String {
    mail[part].as_str().unwrap_or_default().replace("\r\n", "\n")
}

#[tokio::test]
async fn smtp_korean_text_and_html_arrive_byte_for_byte() {
    let mut peer = Peer::start();
    let subject = "[알림] 주문이 완료되었습니다 — ".repeat(8);
    let body = "안녕하세요, 김철수님.\n\n.점으로 시작\n.\n..\n끝 🎉 = 100%";
    let html = format!("<p>주문 <b>완료</b> &amp; 감사</p>\n.\n<!--{}-->", "긴 줄 ".repeat(500));
    let content = content(subject.trim(), body, Some(&html));
    accepted(peer.smtp(Tls::Starttls).send(letter("kim@example.com", &content, 7)).await);
    let mail = peer.only_mail();
    assert_eq!((&mail["from"], &mail["to"]), (&json!("hub@example.net"), &json!(["kim@example.com"])));
    assert_eq!((&mail["user"], &mail["kind"]), (&json!("hub"), &json!("multipart/alternative")));
    assert_eq!((&mail["defects"], &mail["broken_lines"]), (&json!([]), &json!(false)), "{mail}");
    assert_eq!(header(&mail, "Subject"), Some(subject.trim()));
    assert_eq!(header(&mail, "From"), Some("알림 센터 <hub@example.net>"));
    assert_eq!(header(&mail, "To"), Some("kim@example.com"));
    assert_eq!(header(&mail, "Date"), Some("Fri, 05 Mar 2027 00:30:00 +0000"), "of the sending");
    let id = format!("<{}-7@example.net>", Tsid(700_000_000_000_000_000));
    assert_eq!(header(&mail, "Message-ID"), Some(id.as_str()));
    assert_eq!(text(&mail, "text"), body);
    assert_eq!(text(&mail, "html"), html);
}

/// Fault E10: a sender's name and a subject with tabs are shown as they are given.
#[tokio::test]
async fn smtp_header_text_is_shown_as_given() {
    let mut peer = Peer::start();
    let names = ["알림 센터", "=?utf-8?B?7ZWc6riA?=", "Shop =?utf-8?B?7ZWc6riA?=", "A (b) \"c\"", "Plain Name"];
    for name in names {
        let quoted = name.replace('"', "\\\"");
        let from = format!("\"{quoted}\" <hub@example.net>");
        let smtp = Smtp::new(SmtpSettings { from, ..peer.settings(Tls::Implicit) }).unwrap();
        accepted(smtp.send(letter("kim@example.com", &content("a\tb  =?utf-8?Q?c?= ", "y", None), 1)).await);
    }
    let arrived = peer.arrived();
    let mails = arrived["mails"].as_array().unwrap();
    assert_eq!(mails.len(), names.len());
    for (mail, name) in mails.iter().zip(names) {
        assert_eq!(header(mail, "Subject"), Some("a\tb  =?utf-8?Q?c?= "));
        assert_eq!((&mail["sender"], &mail["from"]), (&json!([name, "hub@example.net"]), &json!("hub@example.net")));
    }
}

#[tokio::test]
async fn smtp_dots_and_odd_line_ends_do_not_end_a_mail() {
    let mut peer = Peer::start();
    let smtp = peer.smtp(Tls::Implicit);
    // The last ones are how mails are smuggled through servers that disagree about line ends.
    let bodies = [
        ".",
        "..",
        ".\n",
        "a\n.\nb\n..\n...c",
        "\r\n.\r\nQUIT\r\n",
        "a\n.\r\nMAIL FROM:<x@y.z>\r\n",
        "a\r.\rRCPT TO:<x@y.z>\r\r\n.\n",
        "",
        "\n\n",
        "trailing space \n\ttab\n",
    ];
    for body in bodies {
        accepted(smtp.send(letter("kim@example.com", &content("x", body, None), 1)).await);
    }
    let arrived = peer.arrived();
    let mails = arrived["mails"].as_array().unwrap();
    assert_eq!(mails.len(), bodies.len());
    for (mail, body) in mails.iter().zip(bodies) {
        let written = body.replace("\r\n", "\n").replace('\r', "\n");
        let got = text(mail, "text");
        assert!(got == written || got == format!("{written}\n"), "{body:?} arrived as {got:?}");
        assert_eq!((&mail["defects"], &mail["broken_lines"]), (&json!([]), &json!(false)), "{mail}");
        assert_eq!(mail["to"], json!(["kim@example.com"]));
    }
}

#[tokio::test]
async fn smtp_text_becomes_no_header_and_no_recipient() {
    let mut peer = Peer::start();
    let smtp = peer.smtp(Tls::Starttls);
    for line_end in ["\r\n", "\n", "\r", "\u{85}", "\u{2028}", "\0"] {
        let subject = format!("hi{line_end}Bcc: evil@example.org{line_end}{line_end}evil body 악");
        accepted(smtp.send(letter("kim@example.com", &content(&subject, "good body", None), 1)).await);
    }
    let to = "kim@example.com>\r\nRCPT TO:<evil@example.org";
    assert_eq!(rejected(send(&smtp, to).await), (ErrorClass::Address, "address_invalid".to_owned()));
    let arrived = peer.arrived();
    let mails = arrived["mails"].as_array().unwrap();
    assert_eq!(mails.len(), 6);
    for mail in mails {
        assert_eq!(mail["to"], json!(["kim@example.com"]));
        assert_eq!(header(mail, "Bcc"), None);
        assert_eq!(text(mail, "text").trim_end(), "good body");
        let subject = header(mail, "Subject").unwrap();
        assert_eq!(subject.replace('\u{2028}', " ").replace("  ", " "), "hi Bcc: evil@example.org evil body 악");
    }
}

#[tokio::test]
async fn smtp_refusal_has_its_error_class() {
    let mut peer = Peer::start();
    let smtp = peer.smtp(Tls::Starttls);
    for (local, class, code) in [
        ("rcpt-421-4.3.2", ErrorClass::ProviderInternal, "smtp_421"),
        ("rcpt-450-4.2.0", ErrorClass::RecipientBusy, "smtp_450"),
        ("rcpt-451-4.7.1", ErrorClass::RecipientBusy, "smtp_451"),
        ("data-451-4.7.1", ErrorClass::RecipientBusy, "smtp_451"),
        ("rcpt-550-5.1.1", ErrorClass::Address, "smtp_550"),
        ("rcpt-552-5.2.2", ErrorClass::RecipientBusy, "smtp_552"),
        ("rcpt-554-5.7.1", ErrorClass::Sender, "smtp_554"),
        ("data-451-4.3.0", ErrorClass::ProviderInternal, "smtp_451"),
        ("data-452-4.3.1", ErrorClass::ProviderInternal, "smtp_452"),
        ("data-550-5.7.26", ErrorClass::Sender, "smtp_550"),
        ("data-552-5.3.4", ErrorClass::Content, "smtp_552"),
        ("data-554-5.7.1", ErrorClass::Content, "smtp_554"),
    ] {
        let outcome = send(&smtp, &format!("{local}@example.com")).await;
        assert_eq!(rejected(outcome), (class, code.to_owned()), "{local}");
    }
    let cut = send(&smtp, "data-cut@example.com").await;
    assert!(matches!(cut, Outcome::Unknown { code: "answer_cut", .. }), "{cut:?}");
    accepted(send(&smtp, "kim@example.com").await);
    peer.only_mail();
}

#[tokio::test]
async fn smtp_server_without_a_valid_certificate_gets_nothing() {
    let mut peer = Peer::start();
    for tls in [Tls::Starttls, Tls::Implicit] {
        let stranger = Smtp::new(SmtpSettings { ca_file: None, ..peer.settings(tls) });
        // A machine without certificates refuses at once, and says what to install.
        if let Ok(smtp) = stranger {
            let outcome = send(&smtp, "kim@example.com").await;
            assert_eq!(rejected(outcome), (ErrorClass::Unreachable, "tls_failed".to_owned()), "{tls:?}");
        }
        let misnamed = Smtp::new(SmtpSettings { host: "localhost".to_owned(), ..peer.settings(tls) }).unwrap();
        let outcome = send(&misnamed, "kim@example.com").await;
        assert_eq!(rejected(outcome), (ErrorClass::Unreachable, "tls_failed".to_owned()), "{tls:?}");
        assert!(misnamed.check().await.unwrap_err().contains("certificate"));
    }
    assert_eq!(peer.arrived()["mails"], json!([]));
}

#[tokio::test]
async fn smtp_sign_in_is_part_of_the_check() {
    let peer = Peer::start();
    for tls in [Tls::Starttls, Tls::Implicit] {
        let wrong = Smtp::new(SmtpSettings { password: Some("wrong".to_owned()), ..peer.settings(tls) }).unwrap();
        let outcome = send(&wrong, "kim@example.com").await;
        assert_eq!(rejected(outcome), (ErrorClass::Credentials, "smtp_535".to_owned()));
        assert!(wrong.check().await.unwrap_err().contains("refuses the connection"));
        let nobody = SmtpSettings { username: None, password: None, ..peer.settings(tls) };
        let outcome = send(&Smtp::new(nobody).unwrap(), "kim@example.com").await;
        assert_eq!(rejected(outcome), (ErrorClass::Credentials, "smtp_530".to_owned()));
        let answer = peer.smtp(tls).check().await.unwrap();
        assert!(answer.ends_with("answers, encrypted, and accepts the credentials"), "{answer}");
    }
}

#[tokio::test]
async fn smtp_address_beyond_ascii_needs_smtputf8() {
    let mut peer = Peer::start();
    accepted(send(&peer.smtp(Tls::Starttls), "김철수@example.com").await);
    let mail = peer.only_mail();
    assert_eq!(mail["to"], json!(["김철수@example.com"]));
    assert!(mail["options"].as_array().unwrap().contains(&json!("SMTPUTF8")));
}

#[tokio::test]
async fn smtp_mails_at_the_same_moment_arrive_once_each() {
    let mut peer = Peer::start();
    let shutdown = Shutdown::new();
    for tls in [Tls::Starttls, Tls::Implicit] {
        let smtp = Arc::new(peer.smtp(tls));
        for round in 0..3 {
            let sending = (0..12).map(|no| {
                let smtp = smtp.clone();
                shutdown.spawn(async move {
                    smtp.send(letter("kim@example.com", &content("x", "y", None), round * 12 + no)).await
                })
            });
            for sent in sending.collect::<Vec<_>>() {
                accepted(sent.await.unwrap());
            }
        }
    }
    let arrived = peer.arrived();
    let ids: Vec<&str> = arrived["mails"].as_array().unwrap().iter().filter_map(|m| header(m, "Message-ID")).collect();
    let distinct: BTreeSet<&&str> = ids.iter().collect();
    assert_eq!((ids.len(), distinct.len()), (72, 36));
}

#[tokio::test]
async fn slack_over_tls_needs_a_valid_certificate() {
    let mut peer = Peer::start();
    let url = |host: &str| format!("https://{host}:{}/services/T0/B0/SECRET", peer.ports["https"]);
    let slack = |url: String, ca_file: Option<PathBuf>| {
        let destinations = BTreeMap::from([("ops".to_owned(), url)]);
        Slack::new(&SlackSettings {
            destinations,
            compatible: Default::default(),
            connections: ConnectionPolicy::KeepAlive,
            common: ClientSettings { ca_file, ..ClientSettings::with_budget(BUDGET) },
        })
    };
    let ca_file = Some(peer.folder.join("ca.pem"));
    let content = content("장애", "DB 연결 실패", None);
    let good = slack(url("127.0.0.1"), ca_file.clone()).unwrap();
    accepted(good.send(letter("ops", &content, 1)).await);
    assert_eq!(good.check().await.unwrap(), "1 destination(s); 127.0.0.1 answers");
    let misnamed = slack(url("localhost"), ca_file).unwrap().send(letter("ops", &content, 1)).await;
    assert_eq!(rejected(misnamed), (ErrorClass::Unreachable, "tls_failed".to_owned()));
    if let Ok(stranger) = slack(url("127.0.0.1"), None) {
        let outcome = stranger.send(letter("ops", &content, 1)).await;
        assert!(!format!("{outcome:?}").contains("SECRET"));
        assert_eq!(rejected(outcome), (ErrorClass::Unreachable, "tls_failed".to_owned()));
    }
    assert_eq!(peer.arrived()["posts"], json!([{ "text": "*장애*\nDB 연결 실패" }]));
}
