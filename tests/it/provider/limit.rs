//! Rate limits of a provider, over all processes.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use notihub::model::capability::{Batch, Terms};
use notihub::model::channel::Channel;
use notihub::model::limit::{PermitReport, RateLimit, RateLimitUsage, Strategy};
use notihub::model::retry::ErrorClass;
use notihub::worker;
use proptest::prelude::*;
use serde_json::json;

use crate::provider::{Calls, Says, Stub, end, good, limited, no};
use crate::support::app::{App, start_time};
use crate::support::hubs::{another, stop};
use crate::support::wait::until;

const MINUTE: i64 = 60_000_000;

fn micros(at: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_800_000_000_000_000 + at).unwrap()
}

/// The most requests made in any span of this length, wherever it begins.
fn most_within(made: &[i64], span: i64) -> usize {
    made.iter().map(|from| made.iter().filter(|at| (*from..from + span).contains(at)).count()).max().unwrap_or(0)
}

fn strategy() -> impl proptest::strategy::Strategy<Value = Strategy> {
    prop_oneof![Just(Strategy::SlidingWindow), Just(Strategy::FixedWindow), Just(Strategy::TokenBucket)]
}

proptest! {
    /// S1-11, S1-14, S1-15, S1-16: whenever a granted call is made within its time, reported, given back or lost, no
    /// more calls are made than the law of its strategy allows.
    #[test]
    fn no_more_is_made_than_the_law_allows(
        strategy in strategy(),
        count in 1u32..40,
        burst in 1u32..20,
        steps in prop::collection::vec((0i64..9_000_000, 0u32..30, any::<bool>(), 0i64..1_000, 0u8..4), 1..120),
    ) {
        let limit = RateLimit { strategy, burst, ..RateLimit::per_minute(count) };
        let (mut booked, mut now, mut made, mut reports) = (RateLimitUsage::default(), 0i64, Vec::new(), Vec::new());
        for (passed, wanted, tell, late, fate) in steps {
            now += passed;
            if tell {
                booked.apply_reports(&limit, &std::mem::take(&mut reports));
            }
            let taken = booked.take(&limit, wanted, micros(now));
            let valid = taken.valid_until.timestamp_micros() - micros(now).timestamp_micros();
            prop_assert!(valid >= 0);
            for n in 0..taken.granted {
                let at = now + valid * ((late + i64::from(n) * 37) % 1_000) / 999;
                if fate == 0 && n % 2 == 0 {
                    reports.push(PermitReport { valid_until: taken.valid_until, made_at: None });
                    continue;
                }
                made.push(at);
                if fate != 1 {
                    reports.push(PermitReport { valid_until: taken.valid_until, made_at: Some(micros(at)) });
                }
            }
        }
        made.sort_unstable();
        match strategy {
            Strategy::SlidingWindow => prop_assert!(most_within(&made, MINUTE) <= count as usize),
            Strategy::FixedWindow => {
                let mut windows = BTreeMap::new();
                let start = micros(0).timestamp_micros();
                made.iter().for_each(|at| *windows.entry((start + at).div_euclid(MINUTE)).or_insert(0) += 1);
                prop_assert!(windows.values().all(|n| *n <= count));
            }
            Strategy::TokenBucket => {
                for (n, from) in made.iter().enumerate() {
                    for (m, to) in made.iter().enumerate().skip(n) {
                        let allowed = i64::from(burst) * MINUTE + (to - from) * i64::from(count);
                        prop_assert!((m - n + 1) as i64 * MINUTE <= allowed, "{} in {}", m - n + 1, to - from);
                    }
                }
            }
        }
    }

    /// A call that is made and reported at once is not held against the limit for longer than the law allows: as many
    /// are made as it allows, and the next is free when the usage predicts it.
    #[test]
    fn as_many_are_made_as_the_law_allows(strategy in strategy(), count in 1u32..40, burst in 1u32..20,
        begin in 0i64..60_000_000) {
        let limit = RateLimit { strategy, burst, ..RateLimit::per_minute(count) };
        let (mut booked, start) = (RateLimitUsage::default(), begin);
        let (mut now, mut made) = (start, 0u32);
        while now < start + 3 * MINUTE {
            let taken = booked.take(&limit, 7, micros(now));
            let reports = vec![PermitReport { valid_until: taken.valid_until,
                made_at: Some(micros(now)) }; taken.granted as usize];
            booked.apply_reports(&limit, &reports);
            made += taken.granted;
            // The usage knows when the calls were made only after their reports are applied.
            let next = booked.used(&limit, micros(now)).1.timestamp_micros() - micros(0).timestamp_micros();
            if taken.granted < 7 {
                prop_assert!(next > now, "something is free now, but was not given");
                let early = booked.clone().take(&limit, 1, micros(next - 1));
                prop_assert_eq!(early.granted, 0, "free before it was said");
                prop_assert_eq!(booked.clone().take(&limit, 1, micros(next)).granted, 1);
                now = next;
            }
        }
        let whole = match strategy {
            Strategy::SlidingWindow => 3 * count,
            Strategy::FixedWindow => if micros(start).timestamp_micros() % MINUTE == 0 { 3 * count } else { 4 * count },
            // The burst, and one each time a token is whole again before the end.
            Strategy::TokenBucket => burst + (3 * count - 1),
        };
        prop_assert_eq!(made, whole);
    }
}

/// Three workers, each second for three minutes; returns when the provider was asked.
async fn three_minutes(terms: Terms, batch: Batch, post: usize) -> (App, Vec<DateTime<Utc>>) {
    let (says, calls) = (Says::new(good()), Calls::default());
    let stub = Stub { batch, ..Stub::new("limited", Channel::Slack, &says, &calls) };
    let app = App::with_accounts(&["--claim-batch=40"], vec![stub.on(terms)]).await;
    calls.by(&app);
    let hubs = [app.hub.clone(), another(&app).await, another(&app).await];
    app.post_many(post).await;
    for second in 0..180 {
        // At once now and then, one after the other else, and never the same first.
        if second % 30 == 0 {
            let passes = hubs.iter().map(worker::deliver::deliver_due);
            futures_util::future::join_all(passes).await.into_iter().for_each(|pass| assert!(pass.is_ok(), "{pass:?}"));
        } else {
            worker::deliver::deliver_due(&hubs[second % 3]).await.unwrap();
        }
        app.advance(1);
    }
    let [_, second, third] = hubs;
    stop(second).await;
    stop(third).await;
    let at = calls.at();
    (app, at)
}

/// S1-8, S1-12, S1-16: 100 in any minute, over three minutes and three workers, to the request; and nothing was claimed
/// in vain.
#[tokio::test]
async fn limit_sliding_window_is_kept_by_three_workers() {
    let (app, at) = three_minutes(limited(100, Strategy::SlidingWindow, 1), Batch::One, 420).await;
    assert_eq!(at.len(), 300);
    let made: Vec<i64> = at.iter().map(DateTime::timestamp_micros).collect();
    assert_eq!(most_within(&made, MINUTE), 100);
    let deferred = app.count("select count(*) from attempt_history where outcome = 'NOT_CALLED'").await;
    assert!(deferred <= 3, "{deferred} were claimed in vain");
    end(app).await;
}

/// S1-13, S1-15: 500 in each minute of the clock.
#[tokio::test]
async fn limit_fixed_window_is_kept_by_three_workers() {
    let (app, at) = three_minutes(limited(500, Strategy::FixedWindow, 1), Batch::One, 1_700).await;
    let mut windows: BTreeMap<i64, usize> = BTreeMap::new();
    at.iter().for_each(|at| *windows.entry(at.timestamp() / 60).or_default() += 1);
    assert_eq!(windows.into_values().collect::<Vec<_>>(), [500, 500, 500]);
    end(app).await;
}

/// S1-14: the burst at once, and then one each 0.6 s, which is five in three seconds.
#[tokio::test]
async fn limit_token_bucket_is_kept_by_three_workers() {
    let (app, at) = three_minutes(limited(100, Strategy::TokenBucket, 20), Batch::One, 360).await;
    let until = |seconds: i64| at.iter().filter(|at| **at <= start_time() + TimeDelta::seconds(seconds)).count();
    assert_eq!((until(0), until(3), until(60)), (20, 25, 120));
    assert_eq!(at.len(), until(179));
    assert_eq!(at.len(), 20 + 179 * 100 / 60);
    end(app).await;
}

/// S1-53: a limit counts requests: a batch counts once.
#[tokio::test]
async fn limit_counts_a_batch_as_one_request() {
    let (app, at) = three_minutes(limited(2, Strategy::SlidingWindow, 1), Batch::Any(20), 200).await;
    assert_eq!(at.len(), 6);
    assert!(app.count("select count(*) from deliveries where status = 'SENT'").await > 6, "several at once");
    end(app).await;
}

/// S1-11, S1-41: a message that waits for a limit uses no attempt, and its story says for what and until when; an
/// operator sees how much is used.
#[tokio::test]
async fn delivery_waiting_for_a_limit_uses_no_attempt() {
    let (says, calls) = (Says::new(good()), Calls::default());
    let stub = Stub::new("limited", Channel::Slack, &says, &calls);
    let app = App::with_accounts(&[], vec![stub.on(limited(5, Strategy::SlidingWindow, 1))]).await;
    calls.by(&app);
    app.post_many(5).await;
    app.advance(1);
    let last = app.one().await;
    for _ in 0..30 {
        app.work().await;
        app.advance(1);
    }
    assert_eq!(calls.count(), 5);
    let before = app.attempts().await;
    assert!(before <= 6, "{before} attempts for 5 calls");
    let held = app.timeline(&last, "limited").await;
    assert!(
        held.len() == 1 && held[0].contains("5 in 60 s") && held[0].contains("the delivery waits until"),
        "{held:?}"
    );
    let provider = app.provider("limited").await;
    assert_eq!((&provider["status"], &provider["limit"]["used"]), (&json!("LIMITED"), &json!(5)), "{provider}");
    assert!(app.metrics().await.text.contains("notihub_limit_free{provider=\"limited\"} 0"));
    app.settle_all().await;
    assert_eq!(calls.count(), 6);
    let held = app.timeline(&last, "limited").await;
    assert!(held[0].contains("the delivery waited until"), "{held:?}");
    app.done().await;
}

/// S1-8, S1-16: what is taken while the database stands still may be made from then on, and counts from then on.
#[tokio::test]
async fn limit_during_a_database_stall_is_kept() {
    let (says, calls) = (Says::new(good()), Calls::default());
    let stub = Stub::new("limited", Channel::Slack, &says, &calls).on(limited(50, Strategy::SlidingWindow, 1));
    let app = App::with_accounts(&[], vec![stub]).await;
    calls.by(&app);
    app.one().await;
    app.work().await;
    app.post_many(120).await;
    app.advance(60);
    let db = app.db().await;
    let mut stall = db.begin().await.unwrap();
    sqlx::query("select from provider_limits for update").execute(&mut *stall).await.unwrap();
    let release = async {
        until("it waits", async || app.count("select count(*) from pg_locks where not granted").await > 0).await;
        app.advance(10);
        stall.commit().await.unwrap();
    };
    tokio::join!(app.work(), release);
    for _ in 0..70 {
        app.advance(1);
        app.work().await;
    }
    let at: Vec<i64> = calls.at().iter().map(DateTime::timestamp_micros).collect();
    assert!(at.len() > 51 && most_within(&at, MINUTE) <= 50, "{} of {}", most_within(&at, MINUTE), at.len());
    end(app).await;
}

/// S1-12, S1-54: a probe is a request like any other: while the limit is used up nothing is claimed for it.
#[tokio::test]
async fn probe_waits_for_the_limit() {
    let (says, calls) = (Says::new(no(ErrorClass::Credentials)), Calls::default());
    let stub = Stub::new("locked", Channel::Slack, &says, &calls).on(limited(1, Strategy::SlidingWindow, 1));
    let app = App::with_accounts(&[], vec![stub]).await;
    calls.by(&app);
    app.one().await;
    app.work().await;
    app.post_many(50).await;
    app.advance(40);
    let claimed = app.work().await;
    assert!(claimed <= 2, "{claimed} were claimed for a request that may not be made");
    app.advance(21);
    app.work().await;
    assert_eq!(calls.count(), 2, "and then it is made");
    app.done().await;
}

/// A clock that was set back, or a database that was, blocks no limit for longer than its time.
#[test]
fn limit_after_a_clock_set_back_blocks_no_longer_than_its_time() {
    for strategy in [Strategy::SlidingWindow, Strategy::FixedWindow, Strategy::TokenBucket] {
        let limit = RateLimit { strategy, burst: 5, ..RateLimit::per_minute(5) };
        let (mut booked, hour) = (RateLimitUsage::default(), 60 * MINUTE);
        assert_eq!(booked.take(&limit, 5, micros(hour)).granted, 5);
        let _counted = booked.take(&limit, 0, micros(hour + MINUTE / 6));
        assert!(booked.take(&limit, 5, micros(0)).granted <= 1, "{strategy}: what was made may have been made now");
        assert!(booked.used(&limit, micros(0)).1 <= micros(MINUTE + 2_000_000), "{strategy}");
        assert_eq!(booked.take(&limit, 5, micros(2 * MINUTE)).granted, 5, "{strategy}");
    }
}
