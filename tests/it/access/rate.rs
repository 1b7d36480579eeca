//! A partner's request limit: exact over processes, shown to callers in headers, and without effect on other partners.

use chrono::{DateTime, TimeDelta, Utc};
use notihub::flow::partner::PartnerChange;
use notihub::flow::rate;
use notihub::hub::Hub;
use notihub::model::partner::Partner;
use serde_json::json;

use crate::support::app::{App, email, named};
use crate::support::hubs::another;

/// How many of so many requests each hub lets through at this moment.
async fn offer(hubs: [&Hub; 2], partner: &Partner, each: usize) -> usize {
    let mut through = 0;
    for _ in 0..each {
        for hub in hubs {
            through += usize::from(rate::spend(hub, partner, 1).await.is_ok());
        }
    }
    through
}

/// S0-33, S0-34: by default a thousand in any second, over two processes together: offered three thousand a second for
/// ten seconds, ten thousand pass, give or take two in a hundred; and never more than the limit in one second.
#[tokio::test]
async fn rate_of_a_thousand_a_second_is_kept_over_two_processes() {
    let app = App::new().await;
    let (partner, ..) = app.partner(named("orders")).await;
    assert_eq!(partner.rate_limit_tps, 1000);
    let other = another(&app).await;
    let began = app.hub.clock.now();
    let mut passed: Vec<(DateTime<Utc>, usize)> = Vec::new();
    while app.hub.clock.now() < began + TimeDelta::seconds(10) {
        passed.push((app.hub.clock.now(), offer([&app.hub, &other], &partner, 15).await));
        app.hub.clock.advance(TimeDelta::milliseconds(10));
    }
    let all: usize = passed.iter().map(|p| p.1).sum();
    assert!((9_800..=10_200).contains(&all), "{all}");
    // In any second at most the limit, plus the shares that the two hubs still held from the second before.
    for (from, _) in &passed {
        let within = |at: &DateTime<Utc>| *at >= *from && *at < *from + TimeDelta::milliseconds(1000);
        let some: usize = passed.iter().filter(|p| within(&p.0)).map(|p| p.1).sum();
        assert!(some <= 1040, "{some} in a second from {from}");
    }
    other.shutdown.stop();
    other.store.close().await;
    app.done().await;
}

/// S0-33: the rate that one process leaves is used by another; a clock that is set back locks no partner out.
#[tokio::test]
async fn rate_left_by_one_process_is_used_by_another() {
    let app = App::new().await;
    let (partner, ..) = app.partner(PartnerChange { rate_limit_tps: Some(100), ..named("orders") }).await;
    let other = another(&app).await;
    assert_eq!(offer([&app.hub, &app.hub], &partner, 100).await, 100);
    assert_eq!(offer([&other, &other], &partner, 100).await, 0);
    app.advance(2);
    assert_eq!(offer([&other, &other], &partner, 100).await, 100);
    app.advance(-3600);
    assert_eq!(offer([&other, &other], &partner, 100).await, 100);
    app.advance(3602);
    assert_eq!(offer([&other, &other], &partner, 100).await, 100);
    other.shutdown.stop();
    other.store.close().await;
    app.done().await;
}

/// S0-35, S0-67: a partner over its limit is answered 429 with the time to come back, and no other partner is; a batch
/// counts each of its messages, and is accepted whole or not at all.
#[tokio::test]
async fn rate_exceeded_is_answered_429_with_retry_after() {
    let app = App::new().await;
    let (_, _, token) = app.partner(PartnerChange { rate_limit_tps: Some(10), ..named("small") }).await;
    let batch = |n: usize| Some(json!({"messages": vec![email("kim@example.com"); n]}));
    for n in 0..3 {
        let answer = app.ask(&token, "POST", "/v1/messages", Some(email("kim@example.com"))).await.expect(202);
        assert_eq!(answer.header("ratelimit-limit"), "10");
        assert_eq!(answer.header("ratelimit-remaining"), (9 - n).to_string());
    }
    let large = app.ask(&token, "POST", "/v1/messages/batch", batch(11)).await.refused(422, "batch_size");
    assert!(large.body["detail"].as_str().unwrap().contains("your limit is 10 a second"), "{}", large.text);
    let over = app.ask(&token, "POST", "/v1/messages/batch", batch(8)).await.refused(429, "rate_limited");
    assert_eq!((over.body["code"].as_str(), over.header("retry-after")), (Some("E003"), "1"));
    assert_eq!(over.header("ratelimit-remaining"), "0");
    assert_eq!(app.count("select count(*) from messages").await, 3, "all or nothing");
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.advance(2);
    app.ask(&token, "POST", "/v1/messages/batch", batch(10)).await.expect(202);
    app.ask(&token, "GET", "/v1/messages", None).await.refused(429, "rate_limited");
    app.advance(2);
    app.ask(&token, "GET", "/v1/messages", None).await.expect(200);
    app.done().await;
}
