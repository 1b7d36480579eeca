//! Database sessions: one that cannot write is replaced, poolers are refused or work, several servers are tried in
//! order, a hot standby is good for reading. With a real streaming standby and a real PgBouncer.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use notihub::cli::pg::{PgPlace, PrivatePg};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::app::{App, email};
use crate::support::database::{fresh_database, server_url};
use crate::support::process::{Folder, Notihub, Program, fsck, get, http_to, post};
use crate::support::wait::until;

/// A primary of this test's own, with its streaming standbys.
struct Primary {
    pg: PrivatePg,
}

impl Primary {
    async fn start() -> Primary {
        let place = PgPlace::throw_away().expect("a folder");
        Primary { pg: PrivatePg::start(place).await.expect("PostgreSQL") }
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.pg.port()).into()
    }

    fn password(&self) -> String {
        let data = self.pg.socket_dir().parent().expect("a data folder");
        std::fs::read_to_string(data.join("pg/notihub.password")).expect("its password").trim().to_owned()
    }

    /// Its database over TCP, at this address.
    fn url_at(&self, address: &str) -> String {
        format!("postgres://notihub:{}@{address}/notihub", self.password())
    }

    fn url(&self) -> String {
        self.url_at(&self.address().to_string())
    }

    /// A program of its installation, as the user that it runs as.
    fn program(&self, name: &str) -> Command {
        use std::os::unix::process::CommandExt as _;
        let cluster = self.pg.socket_dir().parent().expect("a data folder").join("pg");
        let owner = cluster.metadata().expect("its folder");
        let mut command = Command::new(self.pg.bin_dir().join(name));
        command.env("PGPASSWORD", self.password()).current_dir("/").stdout(Stdio::null());
        if nix::unistd::Uid::effective().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        command
    }

    async fn standby(&self) -> Standby {
        // Its own folder in one that the server's user may write to.
        let folder = self.pg.socket_dir().join("standby");
        let mut backup = self.program("pg_basebackup");
        backup.args([
            "-D",
            folder.to_str().expect("a plain path"),
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "-h",
            "127.0.0.1",
        ]);
        backup.args(["-U", "notihub", "-p", &self.pg.port().to_string()]);
        let copied = tokio::task::spawn_blocking(move || backup.status()).await.expect("it ends").expect("it runs");
        assert!(copied.success(), "pg_basebackup: {copied}");
        let port = free_port();
        let mut server = self.program("postgres");
        server.arg("-D").arg(&folder).args(["-c", &format!("port={port}"), "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", &format!("unix_socket_directories={}", self.pg.socket_dir().display())]);
        // A standby has to allow as many as its primary.
        server.args(["-c", "max_connections=200", "-c", "fsync=off"]).stderr(Stdio::null());
        let pid = Pid::from_raw(i32::try_from(server.spawn().expect("it starts").id()).expect("a process id"));
        let standby = Standby { pid, address: ([127, 0, 0, 1], port).into(), folder };
        let url = self.url_at(&standby.address.to_string());
        until("the standby answers", async || PgConnection::connect(&url).await.is_ok()).await;
        standby
    }
}

struct Standby {
    pid: Pid,
    address: SocketAddr,
    folder: PathBuf,
}

impl Drop for Standby {
    fn drop(&mut self) {
        let _gone = kill(self.pid, Signal::SIGQUIT);
        let _best_effort = std::fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// What a proxy, a virtual IP or a name is to the hub: an address that leads to another server from one moment on.
/// Connections that were made before stay where they are.
struct Switch {
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
    cut: watch::Sender<u32>,
}

impl Switch {
    #[expect(clippy::disallowed_methods, reason = "what is piped ends with the test, not with the hub")]
    async fn to(target: SocketAddr) -> Switch {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (target, to) = watch::channel(target);
        let (cut, cuts) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (to, mut cuts) = (*to.borrow(), cuts.clone());
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(to).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => (),
                        _ = cuts.changed() => (),
                    }
                });
            }
        });
        Switch { address, target, cut }
    }

    /// New connections lead there.
    fn turn(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Ends all connections that there are.
    fn cut(&self) {
        self.cut.send_modify(|times| *times += 1);
    }
}

async fn run(url: &str, sql: &'static str) {
    let mut conn = PgConnection::connect(url).await.expect("a connection");
    sqlx::raw_sql(sql).execute(&mut conn).await.expect(sql);
}

fn on(folder: &Folder, url: &str, args: &[&str]) -> Notihub {
    Notihub::new(folder, args).env("NOTIHUB_DATABASE_URL", url)
}

/// The API and a worker on this database.
async fn hub(folder: &Folder, url: &str) -> (Program, SocketAddr) {
    let args = ["serve", "--work", "--accept-loss", "--listen=127.0.0.1:0", "--email=mock"];
    let mut program = on(folder, url, &args).start();
    let address = program.address().await;
    (program, address)
}

async fn readiness(address: SocketAddr) -> (u16, String) {
    let _first_wins = rustls::crypto::ring::default_provider().install_default();
    let (status, body) = get(&reqwest::Client::new(), address, "/readyz").await.expect("an answer");
    (status, body["checks"][0]["detail"].as_str().unwrap_or_default().to_owned())
}

/// Waits until `/readyz` says no, for this reason. A connection that is cut may be the reason for a moment.
async fn unready(address: SocketAddr, why: &str) {
    until(why, async || {
        let (status, detail) = readiness(address).await;
        status == 503 && detail.contains(why)
    })
    .await;
}

async fn is_sent(url: &str, count: i64) -> bool {
    let mut conn = PgConnection::connect(url).await.expect("a connection");
    let sent = "select count(*) from deliveries where status = 'SENT'";
    sqlx::query_scalar::<_, i64>(sent).fetch_one(&mut conn).await.expect("a count") == count
}

/// Faults F1: sessions of every pool turn read-only under a running hub. The first refusal gives them up.
#[tokio::test]
async fn session_that_turns_read_only_is_replaced_at_the_first_refusal() {
    let app = App::new().await;
    for pool in [app.hub.store.api(), app.hub.store.intake(), app.hub.store.engine()] {
        turn_read_only(pool).await;
    }
    let mut refusals = 0;
    let id = loop {
        let answer = app.post_as_before("/v1/messages", email("kim@example.com")).await;
        if answer.status == 202 {
            break answer.id();
        }
        answer.refused(503, "database_unavailable");
        refusals += 1;
        assert!(refusals <= 2, "a refused session was used again");
    };
    // One refusal gives up the sessions of every pool. The engine's may have had theirs only now.
    if notihub::worker::deliver::deliver_due(&app.hub).await.is_err() {
        app.work().await;
    }
    assert_eq!(app.message(&id).await["status"], "COMPLETED");
    app.done().await;
}

/// Every session that a pool may have.
async fn turn_read_only(pool: &PgPool) {
    let mut all = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        let mut conn = pool.acquire().await.expect("a session");
        sqlx::raw_sql("set default_transaction_read_only = on").execute(&mut *conn).await.expect("set");
        all.push(conn);
    }
}

/// Faults F1: `/readyz` says no while the database takes no writes, and yes when it does again.
#[tokio::test]
async fn database_without_writes_makes_the_hub_unready() {
    let app = App::new().await;
    let name = app.url.parse::<reqwest::Url>().expect("a URL").path().trim_start_matches('/').to_owned();
    let alter = async |what: &str| {
        let mut server = PgConnection::connect(&server_url()).await.unwrap();
        let alter = format!("alter database {name} {what}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(alter)).execute(&mut server).await.unwrap();
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1";
        let _ended: i64 = sqlx::query_scalar(end).bind(&name).fetch_one(&mut server).await.unwrap();
    };
    assert_eq!(readiness(app.address).await, (200, "takes writes".to_owned()));
    alter("set default_transaction_read_only = on").await;
    unready(app.address, "default_transaction_read_only").await;
    app.post_as_before("/v1/messages", email("kim@example.com")).await.refused(503, "database_unavailable");
    alter("reset default_transaction_read_only").await;
    until("ready", async || readiness(app.address).await.0 == 200).await;
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.settle_all().await;
    app.done().await;
}

/// Faults F1, D6, D7: a proxy leads to the standby and back, as one does that believes its primary dead for a moment.
/// The hub's sessions with the standby stay open, and are not used again. Besides: what reads works on the standby.
#[tokio::test]
async fn proxy_to_a_standby_for_a_while_stops_writes_for_no_longer() {
    let folder = Folder::new();
    let primary = Primary::start().await;
    on(&folder, &primary.url(), &["migrate"]).run().await.expect(0);
    let http = http_to(&primary.url()).await;
    let standby = primary.standby().await;
    let switch = Switch::to(primary.address()).await;
    let (program, address) = hub(&folder, &primary.url_at(&switch.address.to_string())).await;
    posted(&http, address, 1).await;

    switch.turn(standby.address);
    switch.cut();
    unready(address, "hot standby").await;
    let refused = post(&http, address, "/v1/messages", &mail(2)).await.expect("an answer");
    assert_eq!((refused.0, &refused.1["reason"]), (503, &"database_unavailable".into()));

    switch.turn(primary.address());
    until("ready", async || readiness(address).await.0 == 200).await;
    posted(&http, address, 2).await;
    let url = primary.url();
    until("sent", async || is_sent(&url, 2).await).await;

    // The standby has it all as soon as it has caught up.
    let read = primary.url_at(&standby.address.to_string());
    until("replayed", async || is_sent(&read, 2).await).await;
    fsck(&folder, &read).await;
    on(&folder, &read, &["migrate", "--check"]).run().await.expect(0);
    let doctor = on(&folder, &read, &["doctor", "--accept-loss", "--output=json"]).run().await.expect(0).json();
    let writes = check(&doctor, "writes");
    assert_eq!(writes["grade"], "warn", "{writes}");
    assert!(
        writes["stands"].as_str().unwrap().contains("hot standby, 0 bytes received and not yet replayed"),
        "{writes}"
    );
    for args in [&["migrate"][..], &["work", "--once", "--accept-loss"]] {
        let refused = on(&folder, &read, args).run().await.expect(1);
        assert!(refused.stderr.contains("hot standby, which takes no writes"), "{}", refused.stderr);
    }
    program.stop().await.expect(0);
    fsck(&folder, &primary.url()).await;
}

/// Posts an e-mail with this number as its key; repeats it on 503, as the manual tells callers to.
async fn posted(http: &reqwest::Client, address: SocketAddr, n: u32) {
    until("posted", async || post(http, address, "/v1/messages", &mail(n)).await.expect("an answer").0 == 202).await;
}

fn mail(n: u32) -> Value {
    let mut mail = email(&format!("kim{n}@example.com"));
    mail["clientMsgId"] = n.to_string().into();
    mail
}

fn check<'a>(doctor: &'a Value, what: &str) -> &'a Value {
    let findings = doctor["findings"].as_array().expect("findings");
    findings.iter().find(|f| f["check"] == what).unwrap_or_else(|| panic!("no {what} in {doctor}"))
}

/// Faults F1, D7: a promoted server that still has its primary's `synchronous_standby_names` confirms no commit.
/// `/readyz` and `doctor` say why.
#[tokio::test]
async fn server_waiting_for_a_lost_standby_makes_the_hub_unready() {
    let folder = Folder::new();
    let primary = Primary::start().await;
    on(&folder, &primary.url(), &["migrate"]).run().await.expect(0);
    let (program, address) = hub(&folder, &primary.url()).await;
    // One by one: `alter system` takes no transaction around it.
    run(&primary.url(), "alter system set synchronous_standby_names = 'gone'").await;
    run(&primary.url(), "select pg_reload_conf()").await;
    unready(address, "synchronous_standby_names").await;
    let doctor =
        on(&folder, &primary.url(), &["doctor", "--accept-loss", "--output=json"]).run().await.expect(1).json();
    let writes = check(&doctor, "writes");
    assert_eq!(writes["grade"], "fail", "{writes}");
    assert!(writes["remedy"].as_str().unwrap().contains("alter system reset synchronous_standby_names"), "{writes}");
    run(&primary.url(), "alter system reset synchronous_standby_names").await;
    run(&primary.url(), "select pg_reload_conf()").await;
    until("ready", async || readiness(address).await.0 == 200).await;
    program.stop().await.expect(0);
}

/// Faults D5, F1: `--database-url` names the standby first, then the primary. The primary is lost and the standby
/// promoted: the running hub goes over, and nothing acknowledged is lost.
#[tokio::test]
async fn database_url_with_several_hosts_leads_to_the_primary() {
    let folder = Folder::new();
    let primary = Primary::start().await;
    on(&folder, &primary.url(), &["migrate"]).run().await.expect(0);
    let http = http_to(&primary.url()).await;
    let standby = primary.standby().await;
    let hosts = format!("{},{}", standby.address, primary.address());
    let url = format!("{}?target_session_attrs=read-write", primary.url_at(&hosts));
    let (program, address) = hub(&folder, &url).await;
    posted(&http, address, 1).await;
    // Asynchronous replication: what the test counts on has to be there before the primary goes.
    let read = primary.url_at(&standby.address.to_string());
    until("replayed", async || is_sent(&read, 1).await).await;

    kill(Pid::from_raw(primary.pg.pid().cast_signed()), Signal::SIGQUIT).expect("it runs");
    until("unready", async || readiness(address).await.0 == 503).await;
    run(&read, "select pg_promote()").await;
    until("ready", async || readiness(address).await.0 == 200).await;
    posted(&http, address, 2).await;
    until("sent", async || is_sent(&read, 2).await).await;

    // Commands choose as well.
    let all = format!("{}?target_session_attrs=prefer-standby&connect_timeout=2", primary.url_at(&hosts));
    fsck(&folder, &all).await;
    let doctor = on(&folder, &url, &["doctor", "--accept-loss", "--output=json"]).run().await.expect(0).json();
    assert_eq!(check(&doctor, "writes")["grade"], "ok", "{doctor}");
    let none = format!("{}?target_session_attrs=standby", primary.url_at(&hosts));
    let refused = on(&folder, &none, &["fsck"]).run().await.expect(1);
    for named in [standby.address.to_string(), primary.address().to_string(), "asks for a standby".to_owned()] {
        assert!(refused.stderr.contains(&named), "{named}: {}", refused.stderr);
    }
    program.stop().await.expect(0);
    // Its folder goes with the test.
    primary.pg.stop().await.expect("nothing is left");
}

/// PgBouncer before a database: once with `pool_mode` transaction, once with session.
struct Bouncer {
    process: std::process::Child,
    port: u16,
    _folder: Folder,
}

impl Bouncer {
    async fn before(url: &str) -> Bouncer {
        let server: reqwest::Url = url.parse().expect("a URL");
        let (host, port) = (server.host_str().expect("a host"), server.port().expect("a port"));
        let (user, password) = (server.username(), server.password().expect("a password"));
        let target = format!("host={host} port={port} dbname={} user={user}", server.path().trim_start_matches('/'));
        let (folder, listen) = (Folder::new(), free_port());
        let path = folder.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\nby_transaction = {target} password={password} pool_mode=transaction\n\
             by_session = {target} password={password} pool_mode=session\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\nauth_type = any\n\
             default_pool_size = 60\n"
        );
        std::fs::write(&path, settings).expect("its settings");
        let mut command = Command::new("pgbouncer");
        if nix::unistd::Uid::effective().is_root() {
            command.args(["-u", "nobody"]);
        }
        // Debian keeps it where not everyone's PATH leads.
        let everywhere = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        let process = command.arg(&path).env("PATH", everywhere).stderr(Stdio::null()).spawn();
        let process = process.expect("this test needs PgBouncer: install it with `apt-get install pgbouncer`");
        until("PgBouncer listens", async || TcpStream::connect(("127.0.0.1", listen)).await.is_ok()).await;
        Bouncer { process, port: listen, _folder: folder }
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://notihub@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// Faults D4: commands that need sessions refuse a pooler that keeps none, with the remedy, and leave no setting behind
/// in connections that belong to others. `doctor` reports the same.
#[tokio::test]
async fn pooler_in_transaction_mode_is_refused_with_the_remedy() {
    let folder = Folder::new();
    let bouncer = Bouncer::before(&fresh_database().await).await;
    let url = bouncer.url("by_transaction");
    let commands: [&[&str]; 6] = [
        &["serve", "--listen=127.0.0.1:0", "--accept-loss"],
        &["work", "--once", "--accept-loss"],
        &["migrate"],
        &["migrate", "--check"],
        &["partner", "list"],
        &["fsck"],
    ];
    for args in commands {
        let refused = on(&folder, &url, args).run().await.expect(1);
        assert!(refused.stderr.contains("pool_mode = session"), "{args:?}: {}", refused.stderr);
    }
    let doctor = on(&folder, &url, &["doctor", "--output=json"]).run().await.expect(1).json();
    let sessions = check(&doctor, "sessions");
    assert_eq!(sessions["grade"], "fail");
    assert!(sessions["stands"].as_str().unwrap().contains("pool_mode = session"), "{sessions}");
    let mut conn = PgConnection::connect_with(&plain(&url)).await.unwrap();
    let left = "select count(*) from pg_settings where source = 'session' and name in \
        ('search_path', 'statement_timeout', 'lock_timeout', 'plan_cache_mode', 'jit')";
    let left: i64 = sqlx::query_scalar(left).persistent(false).fetch_one(&mut conn).await.unwrap();
    assert_eq!(left, 0, "settings stayed behind in the pooler's connection");
}

/// As PgBouncer of Debian 12 takes it.
fn plain(url: &str) -> sqlx::postgres::PgConnectOptions {
    url.parse::<sqlx::postgres::PgConnectOptions>().expect("a URL").extra_float_digits(None)
}

/// Faults D4: a pooler in session mode is a way to the database like any other, without a setting of its own. `migrate`
/// runs again and again, for a user whose name is also that of a schema.
#[tokio::test]
async fn pooler_in_session_mode_works_as_the_server_itself() {
    let folder = Folder::new();
    let direct = fresh_database().await;
    let bouncer = Bouncer::before(&direct).await;
    let url = bouncer.url("by_session");
    for _ in 0..2 {
        let again = on(&folder, &url, &["migrate", "--output=json"]).run().await.expect(0).json();
        assert_eq!(again["missing"], 0);
    }
    let mut conn = PgConnection::connect(&direct).await.unwrap();
    let tables = "select table_schema::text from information_schema.tables where table_name = '_sqlx_migrations'";
    let schemas: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut conn).await.unwrap();
    assert_eq!(schemas, ["public"]);

    let http = http_to(&direct).await;
    let (program, address) = hub(&folder, &url).await;
    posted(&http, address, 1).await;
    until("sent", async || is_sent(&direct, 1).await).await;
    let doctor = on(&folder, &url, &["doctor", "--accept-loss", "--output=json"]).run().await.expect(0).json();
    assert_eq!(check(&doctor, "writes")["grade"], "ok", "{doctor}");
    program.stop().await.expect(0);
    fsck(&folder, &url).await;
}

/// Faults D4, D5: forms that are not taken say which are.
#[tokio::test]
async fn database_url_in_another_form_is_refused_with_the_right_one() {
    let folder = Folder::new();
    for (url, printed) in [
        ("host=db1,db2 dbname=hub target_session_attrs=read-write", "host1:port1,host2:port2"),
        ("postgres://u:SECRET@db1,db2/hub?target_session_attrs=writable", "read-write, read-only, primary"),
        ("postgres://u:SECRET@/hub?host=db1,db2,db3&port=1,2", "different numbers"),
        ("postgres://u:SECRET@db1,db2/hub?target_session_attrs=standby", "has to write"),
    ] {
        let refused = on(&folder, url, &["work", "--once"]).run().await.expect(2);
        assert!(refused.stderr.contains(printed) && !refused.stderr.contains("SECRET"), "{url}: {}", refused.stderr);
    }
}
