//! The page `/chat/demo` in a browser.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::browser::Browser;
use crate::support::database::fresh_database;
use crate::support::process::{Folder, Notihub, ask, client, fsck, on, token_to};
use crate::support::wait::until;

const IS_READY: &str = "return !document.querySelector('textarea').disabled";
const TEXTS: &str = "return [...document.querySelectorAll('article .text')].map((text) => text.textContent)";
const LAST_STATE: &str = "return document.querySelector('article:last-child [data-part=state]').textContent";
const NOTE: &str = "return document.querySelector('[data-part=note]').textContent";
const PRESENCE: &str = "return document.querySelector('[data-part=presence]').textContent";
const TYPING: &str = "return document.querySelector('[data-part=typing]').textContent";
const TITLE: &str = "return document.title";

/// Sends texts as fast as the page can.
fn send_at_once(texts: &[String]) -> String {
    let texts = json!(texts);
    format!(
        "const form = document.querySelector('form');
        for (const text of {texts}) {{ form.querySelector('textarea').value = text; form.requestSubmit(); }}"
    )
}

/// How many messages of a tab are in this state.
async fn count(browser: &mut Browser, tab: usize, state: &str) -> u64 {
    let counted = browser.run(tab, &format!("return document.querySelectorAll('article.{state}').length")).await;
    counted.as_u64().expect("a number")
}

/// S4-160, S4-161, S4-162, S4-163, S4-164, S4-165, S4-166, S4-167, S4-211, S4-212, L3, L4, L5: two windows on two
/// processes. Each shows what the other writes, that it types, reads and looks away; markup stays text; a message that
/// failed is sent again by a button with the same tempId; of a process that is killed nothing is missing and nothing
/// comes twice, more than a page of history included; a page that is loaded again shows the same.
#[tokio::test]
async fn two_windows_of_the_page_talk_across_a_killed_process() {
    let Some(mut browser) = Browser::start().await else { return };
    let (folder, url) = (Folder::new(), fresh_database().await);
    let token = token_to(&url).await;
    let serve = |listen: &str, sends: &str| on(&folder, &url, &["serve", "--email=off", listen, sends]).start();
    let mut doomed = serve("--listen=127.0.0.1:0", "--user-sends=5");
    let mut other = serve("--listen=127.0.0.1:0", "--user-sends=100");
    let at = [doomed.address().await, other.address().await];
    let (mina, junho) = (0, 1);
    for (address, user) in at.iter().zip(["mina", "junho"]) {
        browser.visit(&format!("http://{address}/chat/demo?user={user}#token={token}")).await;
    }
    for (tab, shown) in [(mina, "준호 is online"), (junho, "Mina 님 온라인")] {
        browser.shows(tab, IS_READY, json!(true)).await;
        browser.shows(tab, PRESENCE, json!(shown)).await;
        browser.shows(tab, NOTE, json!("")).await;
    }

    browser.type_text(mina, "never mind").await;
    browser.shows(junho, TYPING, json!("Mina 님이 입력하고 있습니다…")).await;
    browser.press(mina, "Control+A").await;
    browser.press(mina, "Backspace").await;
    browser.shows(junho, TYPING, json!("")).await;
    browser.type_text(mina, "<b>one</b>").await;
    browser.press(mina, "Shift+Enter").await;
    browser.type_text(mina, "<img src=x onerror=alert(1)>").await;
    browser.press(mina, "Enter").await;
    for tab in [mina, junho] {
        browser.shows(tab, TEXTS, json!(["<b>one</b>\n<img src=x onerror=alert(1)>"])).await;
        browser.shows(tab, "return document.querySelectorAll('article b, article img').length", json!(0)).await;
        let own = "return document.querySelectorAll('article.own').length";
        browser.shows(tab, own, json!(u64::from(tab == mina))).await;
    }
    browser.shows(mina, LAST_STATE, json!("Read")).await;

    let look = |looks: bool| {
        format!("document.hasFocus = () => {looks}; dispatchEvent(new Event({looks} ? 'focus' : 'blur'))")
    };
    browser.run(junho, &look(false)).await;
    browser.shows(mina, PRESENCE, json!("준호 is away")).await;
    browser.type_text(mina, "two").await;
    browser.press(mina, "Enter").await;
    browser.shows(junho, TITLE, json!("(1) Two users in a room · notihub")).await;
    browser.shows(mina, LAST_STATE, json!("Sent")).await;
    browser.run(junho, &look(true)).await;
    browser.shows(junho, TITLE, json!("Two users in a room · notihub")).await;
    browser.shows(mina, LAST_STATE, json!("Read")).await;
    browser.shows(mina, PRESENCE, json!("준호 is online")).await;

    // More than a user may send in a second.
    let mut sent = 0;
    while count(&mut browser, mina, "failed").await == 0 {
        let texts: Vec<String> = (sent..sent + 15).map(|n| format!("fast {n}")).collect();
        browser.run(mina, &send_at_once(&texts)).await;
        browser.shows(mina, "return document.querySelectorAll('article.sending').length", json!(0)).await;
        sent += 15;
        assert!(sent < 1_000, "no message fails");
    }
    let keys = "return [...document.querySelectorAll('article.failed')].map((row) => row.dataset.key)";
    let failed = browser.run(mina, keys).await;
    let again = "const row = document.querySelector('article.failed');
        if (row && !document.querySelector('article.sending')) row.querySelector('[data-part=retry]').click();
        return document.querySelectorAll('article.failed, article.sending').length";
    browser.shows(mina, again, json!(0)).await;
    let http = client(&token);
    let as_mina = async |path: &str| {
        let request = http.get(format!("http://{}/api/v1{path}", at[1])).header("x-user", "mina");
        ask(request).await.expect("an answer").1["data"].clone()
    };
    let rooms = as_mina("/chatrooms").await["items"].clone();
    let room = rooms[0]["roomId"].as_str().expect("a room").to_owned();
    let stored = as_mina(&format!("/messages/{room}?limit=200")).await["items"].clone();
    let stored = stored.as_array().expect("a list");
    assert_eq!(stored.len(), 2 + sent);
    for key in failed.as_array().expect("a list") {
        assert_eq!(stored.iter().filter(|message| message["tempId"] == *key).count(), 1, "{key}: {failed}");
    }

    doomed.signal(Signal::SIGKILL);
    doomed.ended().await;
    browser.shows(mina, NOTE, json!("Connecting…")).await;
    // More than a page of history.
    let missed: Vec<String> = (0..35).map(|n| format!("missed {n}")).collect();
    browser.run(junho, &send_at_once(&missed)).await;
    browser.type_text(mina, "kept").await;
    browser.press(mina, "Enter").await;
    browser.shows(mina, LAST_STATE, json!("Sending…")).await;
    until("all are stored", async || count(&mut browser, junho, "saved").await == (2 + sent + 35) as u64).await;
    let _again = {
        let mut again = serve(&format!("--listen={}", at[0]), "--user-sends=5");
        again.address().await;
        again
    };
    browser.shows(mina, "return document.querySelectorAll('article.saved').length", json!(2 + sent + 36)).await;
    browser.shows(junho, "return document.querySelectorAll('article.saved').length", json!(2 + sent + 36)).await;
    let all: Vec<Value> = browser.run(junho, TEXTS).await.as_array().expect("a list").clone();
    assert_eq!(all.last(), Some(&json!("kept")));
    assert_eq!(all[2 + sent..all.len() - 1], missed.iter().map(|text| json!(text)).collect::<Vec<_>>());
    browser.shows(mina, TEXTS, json!(all)).await;

    // Loaded again, and scrolled to the beginning.
    let older = format!("const older = document.querySelector('.older'); if (!older.hidden) older.click(); {TEXTS}");
    for tab in [mina, junho] {
        browser.ask(json!({"tab": tab, "reload": true})).await;
        browser.shows(tab, IS_READY, json!(true)).await;
        browser.shows(tab, &older, json!(all)).await;
    }
    assert_eq!(as_mina("/chatrooms").await["items"].as_array().map(Vec::len), Some(1));

    browser.run(mina, "document.querySelector('article:last-child [data-part=edit]').click()").await;
    browser.press(mina, "End").await;
    browser.type_text(mina, "!").await;
    browser.press(mina, "Enter").await;
    let last = "return document.querySelector('article:last-child .text').textContent";
    browser.shows(junho, last, json!("kept!")).await;
    browser.shows(junho, LAST_STATE, json!("수정됨")).await;
    browser.run(mina, "document.querySelector('article:last-child [data-part=remove]').click()").await;
    browser.shows(junho, last, json!("삭제된 메시지입니다.")).await;
    browser.shows(mina, last, json!("This message was deleted.")).await;
    fsck(&folder, &url).await;
}

/// S4-66, S4-162, S4-163, S4-167: the link that `up --demo` prints shows two users who write to each other in one
/// window: only the side that is used reads what comes. The link to one of them shows that one alone, in the same room.
#[tokio::test]
async fn link_of_up_demo_shows_two_users_who_talk() {
    let Some(mut browser) = Browser::start().await else { return };
    let folder = Folder::new();
    let data = format!("--data-dir={}", folder.data().display());
    let mut up = Notihub::new(&folder, &["up", "--demo", "--listen=127.0.0.1:0", &data]).start();
    up.says("Ctrl-C stops everything").await;
    let shown = up.stdout();
    let link = shown.lines().map(str::trim).find(|line| line.contains("/chat/demo#token=")).expect("a link");
    browser.visit(link).await;
    let in_side = |user: &str, expression: &str| {
        format!("const side = document.querySelector('[data-user={user}]'); return {expression}")
    };
    let texts = "[...side.querySelectorAll('.text')].map((text) => text.textContent)";
    let badge = "side.querySelector('.badge').hidden ? '' : side.querySelector('.badge').textContent";
    let state = "side.querySelector('.own [data-part=state]').textContent";
    let presence = "side.querySelector('[data-part=presence]').textContent";
    for user in ["mina", "junho"] {
        browser.shows(0, &in_side(user, "side.querySelector('textarea').disabled"), json!(false)).await;
    }
    browser.shows(0, &in_side("mina", presence), json!("준호 is away")).await;
    browser.shows(0, &in_side("junho", presence), json!("Mina 님 온라인")).await;
    browser.type_text(0, "Hello").await;
    browser.press(0, "Enter").await;
    browser.shows(0, &in_side("junho", texts), json!(["Hello"])).await;
    browser.shows(0, &in_side("junho", badge), json!("읽지 않음 1")).await;
    browser.shows(0, &in_side("mina", state), json!("Sent")).await;
    browser.run(0, &in_side("junho", "side.querySelector('textarea').focus()")).await;
    browser.shows(0, &in_side("junho", badge), json!("")).await;
    browser.shows(0, &in_side("mina", state), json!("Read")).await;
    browser.type_text(0, "안녕").await;
    browser.press(0, "Enter").await;
    browser.shows(0, &in_side("mina", texts), json!(["Hello", "안녕"])).await;
    browser.shows(0, &in_side("mina", presence), json!("준호 is online")).await;

    let alone = browser.run(0, "return document.querySelector('[data-alone=junho]').href").await;
    browser.visit(alone.as_str().expect("a link")).await;
    browser.shows(1, "return document.querySelectorAll('section').length", json!(1)).await;
    browser.shows(1, &in_side("junho", texts), json!(["Hello", "안녕"])).await;
    up.stop().await.expect(0);
}
