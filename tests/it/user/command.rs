//! `notihub user` and `notihub partner user-key`, for operators of the machine.

use notihub::crypt::write_key;
use serde_json::{Value, json};

use crate::support::app::{App, MASTER_KEY};
use crate::support::process::{Folder, Notihub, on};
use crate::user::{claims, jwt, me, on_behalf};

/// S4-175: the command lists and shows users, which the audit log records, and blocks, unblocks, signs out and erases
/// one; `partner user-key` prints a key that signs.
#[tokio::test]
async fn user_command_shows_blocks_signs_out_and_erases() {
    let (app, folder) = (App::new().await, Folder::new());
    let at = |args: &[&str]| -> Notihub {
        on(&folder, &app.url, args).arg("--output=json").env("NOTIHUB_MASTER_KEY", write_key(&MASTER_KEY))
    };
    let run = async |args: &[&str]| at(args).run().await.expect(0).json();
    let put = json!({"nickname": "Kim", "email": "kim@example.com"});
    app.ask(&app.token, "PUT", "/v1/users/u-1", Some(put)).await.expect(200);
    on_behalf(&app, "u-2", "GET", "/api/v1/users/me", None).await.expect(200);
    app.post("/v1/messages", crate::support::app::email("kim@example.com")).await.expect(202);
    app.work().await;

    let listed = run(&["user", "list", "test"]).await;
    let names: Vec<&Value> = listed["items"].as_array().unwrap().iter().map(|user| &user["externalId"]).collect();
    assert_eq!(names, ["u-2", "u-1"]);
    let shown = run(&["user", "show", "test", "u-1"]).await;
    assert_eq!(
        (&shown["nickname"], &shown["email"], &shown["state"]),
        (&json!("Kim"), &json!("kim@example.com"), &json!("ACTIVE"))
    );
    let id = shown["userId"].as_str().unwrap();
    let looks: Vec<String> =
        sqlx::query_scalar("select object from audit where action = 'look'").fetch_all(&app.db().await).await.unwrap();
    assert_eq!(looks, [format!("users of {}", app.partner.partner_id), format!("u.{id}")]);
    let unknown = at(&["user", "show", "test", "u-9"]).run().await.expect(1);
    assert!(unknown.stderr.contains("no user 'u-9'"), "{}", unknown.stderr);

    let key = run(&["partner", "user-key", "test"]).await;
    let text = |name: &str| key[name].as_str().unwrap();
    let header = json!({"typ": "JWT", "alg": "HS256", "kid": text("kid")});
    let token = jwt(&header, &claims(&app, app.partner.partner_id, "u-1"), text("userKey"));
    me(&app, &token).await.expect(200);
    // The command goes by the database's clock, which is years behind the test's.
    run(&["user", "sign-out", "test", "u-1"]).await;
    assert_eq!(app.count("select count(*) from users where tokens_after is not null").await, 1);
    assert_eq!(run(&["user", "block", "test", id]).await["state"], "BLOCKED");
    // This process has no listener: what it knows is ten seconds old at most.
    app.advance(11);
    me(&app, &token).await.refused(403, "user_blocked");
    let blocked = run(&["user", "list", "test", "--state=BLOCKED"]).await;
    assert_eq!(blocked["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(run(&["user", "unblock", "test", "u-1"]).await["state"], "ACTIVE");
    let erased = run(&["user", "erase", "test", "u-1"]).await;
    assert_eq!((&erased["messages"], &erased["left"]), (&json!(1), &json!([])), "{erased}");
    at(&["user", "show", "test", "u-1"]).run().await.expect(1);
    assert_eq!(run(&["user", "show", "test", id]).await["state"], "DELETED");
    assert_eq!(app.count("select count(*) from deliveries where recipient like '%kim%'").await, 0);
    app.done().await;
}
