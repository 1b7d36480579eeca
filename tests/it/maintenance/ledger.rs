//! The ledger: what was accepted is what ended or is in flight, to the message, and the sides are counted apart.

use chrono::TimeDelta;
use notihub::model::access::role::StaffRole;
use serde_json::{Value, json};

use crate::support::app::{App, email, named};
use crate::support::process::{Folder, on};

async fn execute(app: &App, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&app.db().await).await.unwrap();
}

/// Posts a mail that is sent, one that is refused, one to both, one that is canceled and one that waits. Returns their
/// ids.
async fn day(app: &App) -> Vec<String> {
    let mut ids = Vec::new();
    let mut both = email("kim@example.com");
    both["channels"][0]["to"] = json!(["kim@example.com", "bounce@example.com"]);
    for body in [email("kim@example.com"), email("bounce@example.com"), both] {
        ids.push(app.post("/v1/messages", body).await.expect(202).id());
    }
    app.work().await;
    ids.push(app.post("/v1/messages", email("lee@example.com")).await.expect(202).id());
    app.post(&format!("/v1/messages/{}/cancel", ids[3]), json!({})).await.expect(200);
    ids.push(app.post("/v1/messages", email("park@example.com")).await.expect(202).id());
    ids
}

async fn ledger(app: &App, query: &str) -> Value {
    app.get(&format!("/v1/ledger{query}")).await.expect(200).body["items"][0].clone()
}

/// Each message is in one column, each delivery too, and the day is the partner's; a lost row on either side is seen,
/// also where the sums agree.
#[tokio::test]
async fn ledger_balances_to_the_message() {
    let app = App::new().await;
    day(&app).await;
    let row = ledger(&app, "").await;
    let messages = json!({"accepted": 5, "completed": 1, "partial": 1, "failed": 1, "canceled": 1, "inFlight": 1});
    assert_eq!((&row["messages"], &row["balanced"]), (&messages, &json!(true)));
    let deliveries = json!({"total": 6, "sent": 2, "delivered": 0, "failed": 2, "expired": 0, "canceled": 1,
        "undetermined": 0, "inFlight": 1});
    assert_eq!(row["deliveries"], deliveries);
    assert_eq!(row["settled"], json!({"total": 4, "success": 2, "failed": 2, "undetermined": 0}));
    let today = row["day"].as_str().unwrap().to_owned();
    assert_eq!(ledger(&app, &format!("?day={today}")).await, row);
    let tomorrow = today.parse::<chrono::NaiveDate>().unwrap() + chrono::Days::new(1);
    assert_eq!(ledger(&app, &format!("?day={tomorrow}")).await["messages"]["accepted"], 0);
    app.get("/v1/ledger?day=27-03-05").await.refused(400, "query_invalid");
    app.get("/v1/ledger?since=2027-03-05").await.refused(400, "query_unknown");

    // Midnight of the partner, not of UTC.
    let now = app.hub.clock.now();
    let (other, _, token) = app.partner(named("later")).await;
    app.ask(&token, "POST", "/v1/messages", Some(email("kim@example.com"))).await.expect(202);
    execute(
        &app,
        &format!("update partners set time_zone = 'Pacific/Kiritimati' where partner_id = {}", other.partner_id.0),
    )
    .await;
    let days = |zone: chrono::FixedOffset| now.with_timezone(&zone).date_naive().to_string();
    let theirs = app.ask(&token, "GET", "/v1/ledger", None).await.expect(200).body["items"][0].clone();
    let offset = |hours| chrono::FixedOffset::east_opt(hours * 3600).unwrap();
    assert_eq!((theirs["day"].as_str(), &theirs["messages"]["accepted"]), (Some(&*days(offset(14))), &json!(1)));
    assert_eq!(today, days(offset(9)));

    let operator = app.staff(StaffRole::Operator).await;
    let all = app.ask(&operator, "GET", &format!("/v1/ledger?day={}", days(offset(14))), None).await.expect(200).body;
    let names = all["items"].as_array().unwrap().iter().map(|item| item["partnerId"].clone());
    assert!(names.clone().any(|id| id == other.partner_id.to_string()), "{all}");

    execute(&app, "create table kept as table messages; create table kept_deliveries as table deliveries").await;
    let sent = "(select message_id from deliveries where status = 'SENT' order by 1 limit 1)";
    execute(&app, &format!("delete from messages where message_id = {sent}")).await;
    let row = ledger(&app, &format!("?day={today}")).await;
    let told = |row: &Value| {
        json!([row["balanced"], row["messages"]["accepted"], row["withoutDeliveries"], row["withoutMessage"]])
    };
    assert_eq!(told(&row), json!([false, 4, 0, 1]));
    // A message without deliveries and deliveries without a message: as many on both sides.
    execute(&app, "delete from deliveries where status = 'CANCELED'").await;
    assert_eq!(told(&ledger(&app, &format!("?day={today}")).await), json!([false, 4, 1, 1]));
    execute(
        &app,
        "truncate messages, deliveries; insert into messages table kept; \
        insert into deliveries table kept_deliveries; drop table kept, kept_deliveries",
    )
    .await;
    assert_eq!(told(&ledger(&app, &format!("?day={today}")).await), json!([true, 5, 0, 0]));
    app.settle_all().await;
    app.done().await;
}

/// The command: a table of partners and days, exit 1 where one does not balance; acknowledged ids, each with its
/// ending, and those that are missing.
#[tokio::test]
async fn ledger_program_names_what_is_missing() {
    let (app, folder) = (App::new().await, Folder::new());
    let ids = day(&app).await;
    // The program has the clock of this machine, the test one of its own.
    let today = ledger(&app, "").await["day"].as_str().unwrap().to_owned();
    let run = async |args: &[&str]| on(&folder, &app.url, &[&["ledger"], args].concat()).run().await;
    let table = run(&["--day", &today]).await.expect(0).stdout;
    assert!(
        table.contains(&format!("{today} {:<20}         5         1         1         1         1         1", "test")),
        "{table}"
    );
    assert!(table.ends_with("balanced\n"), "{table}");
    let since = (app.hub.clock.now() - TimeDelta::days(2)).to_rfc3339();
    run(&["--since", &since]).await.expect(0);
    run(&["--since=7d", "--day", &today]).await.expect(2);
    run(&["--partner=nobody"]).await.expect(1);

    let file = folder.path().join("ids.txt");
    let never = app.hub.next_id().to_string();
    std::fs::write(&file, format!("{}\n\n{}\n", ids.join("\n"), ids[0])).unwrap();
    let file = file.to_str().unwrap();
    let told = run(&["--output=json", "--acknowledged", file]).await.expect(0).json();
    let expected = json!({"acknowledged": 5, "completed": 1, "partial": 1, "failed": 1, "canceled": 1, "inFlight": 1,
        "missing": 0, "withoutDeliveries": 0, "missingIds": [], "withoutDeliveriesIds": []});
    assert_eq!(told, expected);
    std::fs::write(file, format!("{never}\n{}\n", ids[0])).unwrap();
    let told = run(&["--acknowledged", file]).await.expect(1).stdout;
    assert!(told.contains(&format!("{never} is not in the database")) && told.contains("1 completed"), "{told}");
    std::fs::write(file, "kim@example.com\n").unwrap();
    assert!(run(&["--acknowledged", file]).await.expect(2).stderr.contains("line 1: not the id of a message"));

    execute(&app, "create table kept as table deliveries; delete from deliveries where status = 'CANCELED'").await;
    let broken = run(&["--day", &today, "--output=json"]).await.expect(1).json();
    assert_eq!((&broken["balanced"], &broken["items"][0]["withoutDeliveries"]), (&json!(false), &json!(1)));
    execute(&app, "truncate deliveries; insert into deliveries table kept; drop table kept").await;
    app.settle_all().await;
    app.done().await;
}
