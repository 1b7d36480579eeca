//! The element `<notihub-inbox>` in a browser.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::inbox::to_inbox;
use crate::support::browser::Browser;
use crate::support::database::fresh_database;
use crate::support::process::{Folder, fsck, http_to, on, post};

/// Waits until an expression about the element of a tab, `inbox`, has this value.
async fn shows(browser: &mut Browser, tab: usize, expression: &str, wanted: Value) {
    let body = format!("const inbox = document.querySelector('notihub-inbox').shadowRoot; return {expression};");
    browser.shows(tab, &body, wanted).await;
}

const BADGE: &str = "inbox.querySelector('.badge').hidden ? 0 : Number(inbox.querySelector('.badge').textContent)";
const TITLES: &str = "[...inbox.querySelectorAll('.title')].map((title) => title.textContent)";

/// In a browser, on a page of another origin, with a token that the partner's server signed: an item appears in two
/// tabs at two processes, whose counts agree; of a process that is killed nothing is lost and nothing comes twice; and
/// texts stay texts.
#[tokio::test]
async fn element_shows_an_inbox_live_at_two_processes() {
    let Some(mut browser) = Browser::start().await else { return };
    let (folder, url) = (Folder::new(), fresh_database().await);
    let http = http_to(&url).await;
    let key = on(&folder, &url, &["partner", "--output", "json", "user-key", "test"]).run().await.expect(0).json();
    let origin = format!("--allowed-origin={}", browser.origin);
    let serve = |listen: &str| on(&folder, &url, &["serve", "--email=off", listen, &origin]).start();
    let (mut a, mut b) = (serve("--listen=127.0.0.1:0"), serve("--listen=127.0.0.1:0"));
    let work = on(&folder, &url, &["work", "--email=off"]).start();
    let at = [a.address().await, b.address().await];
    let options = json!({"issuer": key["partnerId"], "audience": "notihub/user", "subject": "u-1", "expiresIn": "1h",
        "keyid": key["kid"]});
    let sign = json!({"sign": {"claims": {}, "options": options, "key": key["userKey"]}});
    let token = browser.ask(sign).await.as_str().unwrap().to_owned();
    for address in at {
        let element = format!("<notihub-inbox token={token}></notihub-inbox>");
        let page = format!("<!doctype html><script src=http://{address}/inbox.js></script>{element}");
        browser.ask(json!({"open": page})).await;
    }
    let send = async |at, title: &str| {
        let mut message = to_inbox(&["u-1"], "text");
        message["channels"][0]["subject"] = json!(title);
        assert_eq!(post(&http, at, "/v1/messages", &message).await.unwrap().0, 202);
    };
    for tab in 0..2 {
        shows(&mut browser, tab, BADGE, json!(0)).await;
    }
    send(at[0], "<b>one</b>").await;
    for tab in 0..2 {
        shows(&mut browser, tab, BADGE, json!(1)).await;
        shows(&mut browser, tab, "inbox.querySelector('.bell').click()", Value::Null).await;
        shows(&mut browser, tab, TITLES, json!(["<b>one</b>"])).await;
        shows(&mut browser, tab, "inbox.querySelectorAll('.text b').length", json!(0)).await;
    }
    shows(&mut browser, 1, "inbox.querySelector('.open').click()", Value::Null).await;
    for tab in 0..2 {
        shows(&mut browser, tab, BADGE, json!(0)).await;
    }

    a.signal(Signal::SIGKILL);
    a.ended().await;
    // One after the other: of two that wait together either may arrive first.
    send(at[1], "two").await;
    shows(&mut browser, 1, TITLES, json!(["two", "<b>one</b>"])).await;
    send(at[1], "three").await;
    shows(&mut browser, 1, TITLES, json!(["three", "two", "<b>one</b>"])).await;
    a = serve(&format!("--listen={}", at[0]));
    a.address().await;
    shows(&mut browser, 0, TITLES, json!(["three", "two", "<b>one</b>"])).await;
    send(at[0], "four").await;
    for tab in 0..2 {
        shows(&mut browser, tab, TITLES, json!(["four", "three", "two", "<b>one</b>"])).await;
        shows(&mut browser, tab, BADGE, json!(3)).await;
    }
    for program in [a, b, work] {
        program.stop().await.expect(0);
    }
    fsck(&folder, &url).await;
}
