//! Statistics: what is counted, on whose day, and that the numbers are exact whichever process rolls them up, and when.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use notihub::flow;
use notihub::flow::delivery::claim::{claim, claim_suspect};
use notihub::flow::delivery::load::{HeldDelivery, load};
use notihub::flow::delivery::reap::{Reaper, reap};
use notihub::flow::delivery::settle::settle;
use notihub::flow::rollup::rollup;
use notihub::model::lane::Lane;
use notihub::model::partner::Partner;
use notihub::model::watermark::PlannedClaim;
use notihub::provider::simulator::Behaviour;
use notihub::store::{self, partition};
use serde_json::{Value, json};

use crate::support::app::{App, email, slack_post, start_time};
use crate::support::message::post;
use crate::support::sql::execute;

/// A day's row as one line: date, type, total, success, failed, undetermined.
fn line(item: &Value) -> String {
    let text = |name: &str| item[name].as_str().unwrap().to_owned();
    let number = |name: &str| item[name].as_i64().unwrap();
    format!(
        "{} {} {} = {} + {} + {}",
        text("date"),
        text("type"),
        number("total"),
        number("success"),
        number("failed"),
        number("undetermined")
    )
}

async fn daily(app: &App, query: &str) -> Vec<String> {
    let answer = app.get(&format!("/v1/stats/daily?{query}")).await.expect(200).body;
    assert_eq!((&answer["code"], &answer["timeZone"]), (&json!("0000"), &json!("Asia/Seoul")));
    let items = answer["items"].as_array().unwrap();
    assert!(items.iter().all(|item| item["partnerId"] == app.partner.partner_id.to_string()));
    items.iter().map(line).collect()
}

/// The same of any partner.
async fn daily_of(app: &App, partner: &Partner) -> Vec<String> {
    let (from, to) = ("2027-01-01".parse().unwrap(), "2027-12-31".parse().unwrap());
    let days = store::stats::daily(app.hub.store.api(), partner, from, to, None).await.unwrap();
    let line = |d: &store::stats::DailyStatsRow| {
        let (date, kind, sums) = (d.date, &d.message_type, d.sums);
        format!("{date} {kind} {} = {} + {} + {}", sums.total, sums.success, sums.failed, sums.undetermined())
    };
    days.iter().map(line).collect()
}

async fn waiting(app: &App) -> i64 {
    app.count("select count(*) from stat_deltas").await
}

/// What `fsck` says of the statistics.
async fn findings(app: &App) -> Vec<String> {
    let found = flow::fsck::fsck(&app.hub.store, app.hub.clock.now(), |_| ()).await.unwrap();
    found.into_iter().map(|f| format!("{} {} {}", f.invariant, f.message_id, f.found)).collect()
}

/// As a worker holds, before the call, what a lost worker held.
async fn take_suspect(app: &App) -> HeldDelivery {
    let (claim, _) = claim_suspect(&app.hub, app.hub.next_id(), &[app.partner.shard], &app.hub.providers.channels())
        .await
        .unwrap()
        .expect("a suspect");
    load(&app.hub, claim).await.held.pop().expect("something to hold")
}

/// As a worker holds it before the call.
async fn take_one(app: &App) -> HeldDelivery {
    let (hub, shard) = (&app.hub, app.partner.shard);
    let lanes = Lane::all_of(&hub.providers.channels());
    let looks: Vec<PlannedClaim> = lanes
        .into_iter()
        .map(|lane| PlannedClaim { place: (shard, lane), from_ready_at: DateTime::UNIX_EPOCH, rows: 1 })
        .collect();
    load(hub, claim(hub, hub.next_id(), &looks, 1).await.unwrap()).await.held.pop().expect("something to hold")
}

/// The lease of all that is held is over, and the reaper comes by.
async fn lose(app: &App) {
    execute(
        app,
        "update deliveries set lease_until = clock_timestamp() - interval '1 second' where status = 'PROCESSING'",
    )
    .await;
    assert_eq!(reap(&app.hub, &mut Reaper::default(), &[app.partner.shard]).await.unwrap(), 1);
}

/// To so many seconds after the midnight of Seoul that ends the first day.
fn to_midnight(app: &App, seconds: i64) {
    let midnight: DateTime<Utc> = "2027-03-05T15:00:00Z".parse().unwrap();
    app.hub.clock.advance(midnight + TimeDelta::seconds(seconds) - app.hub.clock.now());
}

async fn post_as(app: &App, partner: &Partner, body: &Value) {
    let body = body.to_string();
    let message = notihub::model::intake::message(body.as_bytes(), &app.hub.intake_policy(&app.partner)).unwrap();
    flow::intake::accept::accept(&app.hub, partner, message).await.unwrap();
}

/// S0-25, S0-26, S0-27, S0-28, S0-60: every ending is counted when it comes, by type and by the day in the partner's
/// time zone; what has not ended and what was canceled is not; rolled up or not, the answer is the same.
#[tokio::test]
async fn stats_count_each_ending_by_day_and_type() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    for to in ["kim@example.com", "lee@example.com", "bounce@example.com"] {
        post(&app, email(to)).await;
    }
    let (mut expires, mut waits) = (slack_post("worthless soon"), slack_post("taken back"));
    expires["expiresAt"] = json!((start_time() + TimeDelta::seconds(60)).to_rfc3339());
    waits["scheduledAt"] = json!((start_time() + TimeDelta::seconds(7200)).to_rfc3339());
    post(&app, expires).await;
    let canceled = post(&app, waits).await;
    assert_eq!(daily(&app, "").await, [""; 0], "nothing has ended yet");

    app.post(&format!("/v1/messages/{canceled}/cancel"), json!({})).await.expect(200);
    app.advance(61);
    app.work().await;
    app.slack.script(Behaviour::Cut, 1);
    post(&app, slack_post("never answered")).await;
    app.work().await;
    to_midnight(&app, -1);
    post(&app, slack_post("the last of the day")).await;
    app.work().await;
    to_midnight(&app, 0);
    post(&app, slack_post("the first of the day")).await;
    app.slack.script(Behaviour::Fail { status: 503, text: "down".into() }, 1);
    app.work().await;
    let first = ["2027-03-05 EMAIL 3 = 2 + 1 + 0".to_owned(), "2027-03-05 SLACK 3 = 1 + 1 + 1".to_owned()];
    assert_eq!(daily(&app, "").await, first, "what is tried again has not ended");
    app.settle_all().await;
    let both = [&["2027-03-06 SLACK 1 = 1 + 0 + 0".to_owned()], &first[..]].concat();
    assert_eq!(daily(&app, "").await, both);
    assert!(waiting(&app).await > 0);
    assert_eq!(app.count("select count(*) from partner_daily_stats").await, 0);

    while rollup(&app.hub).await.unwrap() {}
    assert_eq!(waiting(&app).await, 0);
    assert_eq!(app.count("select count(*) from partner_daily_stats").await, 3);
    assert_eq!(daily(&app, "").await, both);

    // Further ones are added to what is there, seen before and after.
    post(&app, slack_post("one more")).await;
    app.work().await;
    for _ in 0..2 {
        assert_eq!(daily(&app, "from=2027-03-06").await, ["2027-03-06 SLACK 2 = 2 + 0 + 0"]);
        rollup(&app.hub).await.unwrap();
    }
    app.done().await;
}

/// S0-28: late evidence that an undetermined delivery was sent is counted on the day on which the delivery was counted;
/// for one that was not counted yet, on the day of the evidence.
#[tokio::test]
async fn stats_are_corrected_by_late_evidence() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    post(&app, slack_post("undetermined")).await;
    let late = crate::support::app::call_one(&app.hub, take_one(&app).await).await;
    lose(&app).await;
    assert_eq!(daily(&app, "").await, ["2027-03-05 SLACK 1 = 0 + 0 + 1"]);
    rollup(&app.hub).await.unwrap();
    to_midnight(&app, 5);
    for _ in 0..2 {
        settle(&app.hub, std::slice::from_ref(&late)).await.unwrap();
        assert_eq!(daily(&app, "").await, ["2027-03-05 SLACK 1 = 1 + 0 + 0"], "once, however often it is said");
    }
    app.done().await;

    let app = App::new().await;
    post(&app, slack_post("pending again")).await;
    let late = crate::support::app::call_one(&app.hub, take_one(&app).await).await;
    lose(&app).await;
    to_midnight(&app, 5);
    settle(&app.hub, &[late]).await.unwrap();
    assert_eq!(daily(&app, "").await, ["2027-03-06 SLACK 1 = 1 + 0 + 0"]);

    // It comes while the next attempt runs, and that is refused: ended and lifted in one commit.
    post(&app, slack_post("under way again")).await;
    let late = crate::support::app::call_one(&app.hub, take_one(&app).await).await;
    lose(&app).await;
    let second = take_suspect(&app).await;
    settle(&app.hub, &[late]).await.unwrap();
    assert_eq!(daily(&app, "").await, ["2027-03-06 SLACK 1 = 1 + 0 + 0"], "still under way");
    app.slack.script(Behaviour::Fail { status: 404, text: "no_service".into() }, 1);
    let second = crate::support::app::call_one(&app.hub, second).await;
    settle(&app.hub, &[second]).await.unwrap();
    assert_eq!(daily(&app, "").await, ["2027-03-06 SLACK 2 = 2 + 0 + 0"]);
    app.done().await;
}

/// S0-28: a step that lost its fence, or is written a second time, counts nothing.
#[tokio::test]
async fn stats_count_no_settle_that_lost_its_fence() {
    let app = App::new().await;
    post(&app, slack_post("x")).await;
    app.slack.script(Behaviour::Fail { status: 404, text: "no_service".into() }, 1);
    let late = crate::support::app::call_one(&app.hub, take_one(&app).await).await;
    lose(&app).await;
    let second = crate::support::app::call_one(&app.hub, take_suspect(&app).await).await;
    settle(&app.hub, &[late]).await.unwrap();
    assert_eq!(daily(&app, "").await, [""; 0]);
    for _ in 0..3 {
        settle(&app.hub, std::slice::from_ref(&second)).await.unwrap();
        rollup(&app.hub).await.unwrap();
    }
    assert_eq!(daily(&app, "").await, ["2027-03-05 SLACK 1 = 1 + 0 + 0"]);
    app.done().await;
}

/// S0-26: each partner has its own counts, by the days of its own time zone, though one batch settles them all.
#[tokio::test]
async fn stats_have_each_partners_own_days() {
    let app = App::new().await;
    let mut theirs = Partner::new(app.hub.next_id(), "theirs".into(), app.partner.shard);
    theirs.time_zone = "America/New_York".into();
    let mut others = Partner::new(app.hub.next_id(), "others".into(), app.partner.shard + 1);
    others.time_zone = "UTC".into();
    for partner in [&theirs, &others] {
        assert!(store::partner::insert(app.hub.store.api(), partner, app.hub.clock.now()).await.unwrap());
    }
    for n in 0..6 {
        let partner = [&*app.partner, &theirs, &others][n % 3];
        post_as(&app, partner, &email(&format!("no{n}@example.com"))).await;
    }
    post_as(&app, &theirs, &email("bounce@example.com")).await;
    app.work().await;
    for _ in 0..2 {
        assert_eq!(daily(&app, "").await, ["2027-03-05 EMAIL 2 = 2 + 0 + 0"]);
        assert_eq!(daily_of(&app, &theirs).await, ["2027-03-04 EMAIL 3 = 2 + 1 + 0"], "in New York it is yesterday");
        assert_eq!(daily_of(&app, &others).await, ["2027-03-05 EMAIL 2 = 2 + 0 + 0"]);
        rollup(&app.hub).await.unwrap();
    }
    app.done().await;
}

/// A time zone that the database does not know would stop the roll-up for all partners, so no partner can have one.
#[tokio::test]
async fn partner_with_an_unknown_time_zone_is_refused() {
    let app = App::new().await;
    let mut partner = Partner::new(app.hub.next_id(), "martian".into(), 0);
    partner.time_zone = "Mars/Olympus_Mons".into();
    assert!(store::partner::insert(app.hub.store.api(), &partner, app.hub.clock.now()).await.is_err());
    assert_eq!(app.count("select count(*) from partners").await, 1);
    app.done().await;
}

/// S0-28: several processes roll up at the same time, one of them dies in it, and others settle meanwhile: a reader
/// sees the exact counts at every moment.
#[tokio::test]
async fn stats_rolled_up_at_the_same_moment_stay_exact() {
    let app = App::new().await;
    for n in 0..20 {
        post(&app, slack_post(&format!("no {n}"))).await;
        app.work().await;
    }
    assert_eq!(waiting(&app).await, 20);
    let exactly = ["2027-03-05 SLACK 20 = 20 + 0 + 0"];

    // The second passes over what the first holds, and adds to the same day when the first is done, or dead.
    let mut dies = app.hub.store.begin_engine().await.unwrap();
    assert_eq!(store::stats::roll_up(&mut *dies, 15, None).await.unwrap().0, 15);
    assert_eq!(daily(&app, "").await, exactly, "what is not committed is not seen");
    let dying = async {
        while app.count("select count(*) from pg_locks where not granted").await == 0 {}
        dies.rollback().await.unwrap();
    };
    let (second, ()) = tokio::join!(store::stats::roll_up(app.hub.store.engine(), 1000, None), dying);
    assert_eq!(second.unwrap().0, 5);
    assert_eq!((waiting(&app).await, daily(&app, "").await), (15, exactly.map(str::to_owned).to_vec()));

    for n in 0..5 {
        post(&app, slack_post(&format!("meanwhile {n}"))).await;
    }
    let rounds = (0..8).map(|_| async {
        let mut moved = 0;
        for _ in 0..8 {
            moved += store::stats::roll_up(app.hub.store.api(), 3, None).await.unwrap().0;
        }
        moved
    });
    let (moved, claimed) = tokio::join!(join_all(rounds), app.work());
    assert!(claimed == 5 && moved.iter().filter(|n| **n > 0).count() > 1, "nothing happened at once: {moved:?}");
    assert_eq!(daily(&app, "").await, ["2027-03-05 SLACK 25 = 25 + 0 + 0"]);
    while rollup(&app.hub).await.unwrap() {}
    assert_eq!(daily(&app, "").await, ["2027-03-05 SLACK 25 = 25 + 0 + 0"]);
    assert_eq!(app.count("select count(*) from partner_daily_stats").await, 1);
    app.done().await;
}

/// S0-23, S0-25: statistics outlive the messages they were counted of, and stay exact: what retention dropped is on
/// record, and what is left of the same day can still be counted again.
#[tokio::test]
async fn stats_outlive_their_messages() {
    let app = App::new().await;
    post(&app, email("kim@example.com")).await;
    post(&app, email("bounce@example.com")).await;
    app.work().await;
    rollup(&app.hub).await.unwrap();
    // Accepted this week, sent in the next, together with one of the next.
    let mut later = slack_post("later");
    later["scheduledAt"] = json!("2027-03-09T00:00:00Z");
    post(&app, later).await;
    app.advance(4 * 86_400);
    post(&app, slack_post("of the next week")).await;
    app.work().await;
    let range = "from=2027-03-01&to=2027-03-31";
    let all = ["2027-03-09 SLACK 2 = 2 + 0 + 0", "2027-03-05 EMAIL 2 = 1 + 1 + 0"];
    assert_eq!(daily(&app, range).await, all);

    app.advance(89 * 86_400);
    let dropped = flow::retain::retain(&app.hub).await.unwrap().dropped;
    assert!(dropped.contains(&"deliveries_20270301".to_owned()), "{dropped:?}");
    assert_eq!(app.count("select count(*) from deliveries").await, 1);
    assert_eq!(daily(&app, range).await, all);
    assert_eq!(findings(&app).await, [""; 0]);
    rollup(&app.hub).await.unwrap();
    assert_eq!(daily(&app, range).await, all);
    assert_eq!(findings(&app).await, [""; 0]);

    // Still compared: a day that is gone, and one that is half gone.
    for wrong in [
        "update partner_daily_stats set total = total + 1 where stat_date = '2027-03-05'",
        "update partner_daily_stats set success = success - 1 where stat_date = '2027-03-09'",
    ] {
        execute(&app, wrong).await;
    }
    assert_eq!(findings(&app).await.len(), 2);
    execute(
        &app,
        "update partner_daily_stats set total = gone_total where stat_date = '2027-03-05'; \
         update partner_daily_stats set success = success + 1 where stat_date = '2027-03-09'",
    )
    .await;

    app.advance(30 * 86_400);
    flow::retain::retain(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from deliveries").await, 0);
    assert_eq!(daily(&app, range).await, all);
    app.done().await;
}

/// Two processes that drop the same week at once drop it once, and note it once.
#[tokio::test]
async fn stats_of_a_week_dropped_twice_are_noted_once() {
    let app = App::new().await;
    post(&app, email("kim@example.com")).await;
    app.work().await;
    app.advance(100 * 86_400);
    let (now, oldest) = (app.hub.clock.now(), app.hub.clock.now() - TimeDelta::days(90));
    let rounds = (0..4).map(|_| partition::maintain(&app.hub.store, now, oldest));
    let rounds: Vec<partition::MaintenanceRound> = join_all(rounds).await.into_iter().map(Result::unwrap).collect();
    let dropped: Vec<&String> = rounds.iter().flat_map(|r| &r.dropped).collect();
    let once: BTreeSet<&String> = dropped.iter().copied().collect();
    assert_eq!(dropped.len(), once.len(), "{dropped:?}");
    assert!(dropped.iter().any(|name| *name == "deliveries_20270301"), "{dropped:?}");
    assert_eq!(app.count("select sum(gone_total)::bigint from partner_daily_stats").await, 1);
    flow::retain::retain(&app.hub).await.unwrap();
    app.done().await;
}

/// S0-28: a count that is off by one, on either side or on no day at all, is found.
#[tokio::test]
async fn stats_off_by_one_are_found_by_fsck() {
    let app = App::new().await;
    post(&app, email("kim@example.com")).await;
    app.work().await;
    rollup(&app.hub).await.unwrap();
    let me = app.partner.partner_id;
    assert_eq!(findings(&app).await, [""; 0]);
    for (wrong, answer) in [
        (
            "update partner_daily_stats set total = 2",
            "counted 2, success 1, failed 0; there are 1, success 1, failed 0",
        ),
        (
            "update partner_daily_stats set failed = 1",
            "counted 1, success 1, failed 1; there are 1, success 1, failed 0",
        ),
        ("delete from partner_daily_stats", "counted 0, success 0, failed 0; there are 1, success 1, failed 0"),
    ] {
        execute(&app, "create table kept as table partner_daily_stats").await;
        execute(&app, wrong).await;
        assert_eq!(findings(&app).await, [format!("stats {me} 2027-03-05 EMAIL: {answer}")]);
        execute(&app, "delete from partner_daily_stats; insert into partner_daily_stats table kept; drop table kept")
            .await;
    }
    app.done().await;
}

/// S0-60, S0-61, S0-62, S0-63: the table, its indexes and its key are called what they were asked to be called.
#[tokio::test]
async fn stats_table_and_indexes_have_the_seeds_names() {
    let app = App::new().await;
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "select indexname::text, indexdef from pg_indexes where tablename = 'partner_daily_stats' order by 1",
    )
    .fetch_all(&app.db().await)
    .await
    .unwrap();
    let indexes: Vec<(&str, &str)> =
        indexes.iter().map(|(name, text)| (name.as_str(), text.rsplit(" USING ").next().unwrap())).collect();
    assert_eq!(
        indexes,
        [
            ("idx_stat_date", "btree (stat_date)"),
            ("idx_stat_partner_id", "btree (partner_id)"),
            ("uk_stat_partner_date_type", "btree (partner_id, stat_date, message_type)"),
        ]
    );
    let unique = "select count(*) from pg_constraint where conname = 'uk_stat_partner_date_type' and contype = 'u'";
    assert_eq!(app.count(unique).await, 1);
    app.done().await;
}

/// S0-25, S0-26: which days and which type; dates that are none, that are too many or the wrong way round are refused.
#[tokio::test]
async fn stats_of_days_and_types_are_read() {
    let app = App::new().await;
    for day in 0..9 {
        to_midnight(&app, (day - 1) * 86_400);
        post(&app, slack_post("x")).await;
        if day % 4 == 0 {
            post(&app, email("kim@example.com")).await;
        }
        app.work().await;
    }
    let days = async |query: &str| -> String {
        let answer = daily(&app, query).await;
        let short = |l: &String| l.split(' ').take(2).collect::<Vec<_>>().join(" ").replace("2027-03-", "");
        answer.iter().map(short).collect::<Vec<_>>().join(", ")
    };
    let week = "13 EMAIL, 13 SLACK, 12 SLACK, 11 SLACK, 10 SLACK, 09 EMAIL, 09 SLACK, 08 SLACK, 07 SLACK";
    for (query, wanted) in [
        ("", week),
        ("to=2027-03-13", week),
        ("from=2027-03-07", week),
        ("to=2027-03-06", "06 SLACK, 05 EMAIL, 05 SLACK"),
        ("from=2027-03-12", "13 EMAIL, 13 SLACK, 12 SLACK"),
        ("from=2027-03-09&to=2027-03-10", "10 SLACK, 09 EMAIL, 09 SLACK"),
        ("from=2027-03-08&to=2027-03-08", "08 SLACK"),
        ("from=2027-02-01&to=2027-02-28", ""),
        ("from=2027-03-01&type=EMAIL", "13 EMAIL, 09 EMAIL, 05 EMAIL"),
        ("type=SMS", ""),
        ("from=0000-01-01&to=0000-01-02", ""),
        ("from=9999-12-31&to=9999-12-31", ""),
        // A hundred days.
        ("from=2026-12-04&type=EMAIL", "13 EMAIL, 09 EMAIL, 05 EMAIL"),
    ] {
        assert_eq!(days(query).await, wanted, "{query}");
        rollup(&app.hub).await.unwrap();
    }
    let answer = app.get("/v1/stats/daily?type=EMAIL").await.expect(200).body;
    assert_eq!((&answer["from"], &answer["to"]), (&json!("2027-03-07"), &json!("2027-03-13")));
    assert_eq!(
        answer["items"][0],
        json!({"partnerId": app.partner.partner_id.to_string(), "date": "2027-03-13", "type": "EMAIL", "total": 1,
            "success": 1, "failed": 0, "undetermined": 0})
    );
    for query in [
        "from=2027-3-5",
        "from=20270305",
        "from=2027-02-30",
        "from=%2B027-03-05",
        "from=10000-01-01",
        "to=tomorrow",
        "to=",
        "from=2027-03-05T00:00:00Z",
        "from=2027-03-14",
        "from=2027-03-08&to=2027-03-07",
        "from=2026-12-03",
        "from=0001-01-01&to=9999-12-31",
        "type=FAX",
        "type=email",
    ] {
        let refused = app.get(&format!("/v1/stats/daily?{query}")).await.refused(400, "query_invalid");
        assert_eq!(refused.body["code"], "E001", "{query}");
    }
    app.get("/v1/stats/daily?since=2027-03-05").await.refused(400, "query_unknown");
    app.get("/v1/stats/daily?to=2027-03-05&to=2027-03-06").await.refused(400, "query_duplicate");
    app.done().await;
}

/// S0-60: endings from before there were statistics are counted by the migration that brings them.
#[tokio::test]
async fn stats_of_earlier_endings_are_counted_by_the_migration() {
    let app = App::with(&["--on-unknown=SLACK=hold"]).await;
    for to in ["kim@example.com", "bounce@example.com"] {
        post(&app, email(to)).await;
    }
    app.slack.script(Behaviour::Cut, 1);
    post(&app, slack_post("never answered")).await;
    app.work().await;
    to_midnight(&app, 1);
    post(&app, slack_post("the next day")).await;
    app.work().await;
    post(&app, slack_post("waits")).await;
    let counted = daily(&app, "").await;
    assert_eq!(counted.len(), 3);
    execute(
        &app,
        "drop table stat_deltas, partner_daily_stats; alter table partners drop constraint ck_partner_time_zone; \
         delete from _sqlx_migrations where version = 4",
    )
    .await;
    crate::support::database::migrate(&app.url).await;
    assert_eq!((waiting(&app).await, daily(&app, "").await), (0, counted));
    app.settle_all().await;
    app.done().await;
}
