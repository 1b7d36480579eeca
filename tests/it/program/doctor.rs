//! Doctor: what it opens, and what it finds after a restore.

use notihub::cli::pg::{PgPlace, PrivatePg};
use notihub::flow;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::support::app::{App, named, slack_post};
use crate::support::database::{as_superuser, fresh_database};
use crate::support::process::{Ended, Folder, fsck, http_with_key};
use crate::support::role::{doctor, enqueue, graded, login, program};
use crate::support::sql::run_sql;

/// Faults D3: a dump restored into a server that has neither the roles nor the master key. `migrate` makes the roles
/// and repairs the grants, a process without the key does not start, and `doctor` says what does not open.
#[tokio::test]
async fn doctor_after_a_restore_names_what_does_not_open() {
    let (folder, url, key) = (Folder::new(), fresh_database().await, notihub::crypt::write_key(&[9; 32]));
    let http = http_with_key(&url, [9; 32]).await;
    drop(http);
    let (name, _service) = login(&url, "in role notihub_enqueue").await;
    let with_key = |args: &[&str]| program(&folder, args, &url, None).env("NOTIHUB_MASTER_KEY", &key);
    with_key(&["partner", "set", "test", "--encrypt-content=true"]).run().await.expect(0);
    with_key(&["partner", "grant", "test", "--role", &name]).run().await.expect(0);
    let all_sealed = doctor(&folder, &url, Some(&key)).await;
    assert_eq!(graded(&all_sealed, "sealed").0, "ok", "{all_sealed}");

    let pg = PrivatePg::start(PgPlace::throw_away().unwrap()).await.unwrap();
    let dump = folder.path().join("dump.sql");
    let tool = |name: &str| std::process::Command::new(pg.bin_dir().join(name));
    let dumped = tool("pg_dump").arg("--file").arg(&dump).arg("--dbname").arg(as_superuser(&url)).status().unwrap();
    assert!(dumped.success());
    let mut server = PgConnection::connect(pg.url()).await.unwrap();
    run_sql(&mut server, "drop role notihub_app").await;
    // Statements about roles that are not there fail, as they do at a terminal.
    let restored = tool("psql").args(["--quiet", "--file"]).arg(&dump).arg(pg.url()).output().unwrap();
    let errors = String::from_utf8_lossy(&restored.stderr).into_owned();
    assert!(errors.contains("role \"notihub_app\" does not exist"), "{errors}");

    let owner = pg.url().to_owned();
    let migrate = async |args: &[&str]| -> Ended { program(&folder, args, pg.app_url(), Some(&owner)).run().await };
    let serve = program(&folder, &["serve", "--listen=127.0.0.1:0"], &owner, None).run().await.expect(1);
    assert!(serve.stderr.contains("signing keys") && serve.stderr.contains("--master-key"), "{}", serve.stderr);
    let answer = doctor(&folder, &owner, None).await;
    assert_eq!(graded(&answer, "rights"), ("warn".into(), "there is no role notihub_app, notihub_enqueue".into()));
    let (grade, stands) = graded(&answer, "sealed");
    assert!(grade == "fail" && stands.contains("signing keys DO NOT OPEN"), "{stands}");

    let repaired = migrate(&["migrate"]).await.expect(0).stdout;
    assert!(
        repaired.contains("create role notihub_app") && repaired.contains("create role notihub_enqueue"),
        "{repaired}"
    );
    assert!(repaired.contains("rights repaired") && !repaired.contains("to run"), "{repaired}");
    migrate(&["migrate", "--check"]).await.expect(0);
    // One right that is taken away is found and given back.
    run_sql(&mut server, "revoke insert on messages from notihub_app; grant delete on audit to notihub_app").await;
    let lacking = migrate(&["migrate", "--check", "--output=json"]).await.expect(1).json();
    let lacking = lacking["rightsMissing"].as_array().unwrap().clone();
    assert_eq!(lacking.len(), 2, "{lacking:?}");
    migrate(&["migrate"]).await.expect(0);
    migrate(&["migrate", "--check"]).await.expect(0);

    let worked = program(&folder, &["work", "--once"], pg.app_url(), None).run().await.expect(1);
    assert!(worked.stderr.contains("--master-key") && worked.stderr.contains("--accept-unopened"), "{}", worked.stderr);
    let worked = program(&folder, &["work", "--once"], pg.app_url(), None).env("NOTIHUB_MASTER_KEY", &key);
    worked.run().await.expect(0);
    program(&folder, &["work", "--once", "--accept-unopened"], pg.app_url(), None).run().await.expect(0);
    run_sql(
        &mut server,
        &format!("create role {name} login in role notihub_enqueue; set session authorization {name}"),
    )
    .await;
    run_sql(&mut server, &enqueue("test", &slack_post("after the restore"))).await;
    fsck(&folder, pg.app_url()).await;
    pg.stop().await.unwrap();
}

/// Faults D3: each kind of sealed thing is opened; one that was sealed under a key that is not given is named.
#[tokio::test]
async fn doctor_opens_one_of_each_sealed_kind() {
    let app = App::with(&["--webhook-allow-http", "--webhook-allow-network=127.0.0.0/8"]).await;
    let (_, _, token) =
        app.partner(flow::partner::PartnerChange { encrypt_content: Some(true), ..named("sealed") }).await;
    app.ask(&token, "POST", "/v1/messages", Some(slack_post("secret"))).await.expect(202);
    let endpoint = json!({"url": "http://127.0.0.1:8999/x", "headers": {"x-key": "secret"}});
    let made = app.ask(&token, "POST", "/v1/webhooks", Some(endpoint)).await.expect(201);
    let rotate = format!("/v1/webhooks/{}/rotate", made.body["endpointId"].as_str().unwrap());
    app.ask(&token, "POST", &rotate, Some(json!({"overlapSeconds": 600}))).await.expect(200);
    let actor = notihub::model::access::principal::Actor::local_admin("test".into());
    for _ in 0..2 {
        let (permit, overlap) = (actor.admin_permit().unwrap(), chrono::TimeDelta::hours(1));
        flow::partner::rotate_user_key(&app.hub, permit, app.partner.partner_id, overlap).await.unwrap();
    }
    let device = app.http.post(app.uri("/api/v1/users/me/devices")).bearer_auth(&app.token).header("x-user", "u-1");
    let device = device.header("content-type", "application/json").body(r#"{"platform": "FCM", "token": "secret"}"#);
    crate::support::app::Answer::read(device).await.expect(201);
    let now = app.hub.clock.now();
    let kinds = async |keys: &[[u8; 32]]| {
        let keyring = flow::sealed::keyring(&app.hub.store, keys).await.unwrap();
        let kinds = flow::sealed::open_one_of_each(&app.hub.store, &keyring, now).await.unwrap();
        (kinds, flow::sealed::check(&app.hub.store, &keyring, now).await)
    };
    let (right, checked) = kinds(&[crate::support::app::MASTER_KEY]).await;
    assert!(right.iter().all(|kind| kind.opened > 0 && kind.unopened == 0) && checked.is_ok(), "{right:?}");
    let (wrong, checked) = kinds(&[[1; 32]]).await;
    assert!(wrong.iter().all(|kind| kind.opened == 0 && kind.unopened > 0), "{wrong:?}");
    let answer = checked.unwrap_err().to_string();
    for kind in ["signing keys", "webhook secrets", "former webhook secrets", "webhook headers", "message contents"] {
        assert!(answer.contains(kind), "{kind}: {answer}");
    }
    app.work().await;
    app.done().await;
}
