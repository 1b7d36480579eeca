//! `notihub doctor`: is everything as it should be, and if not, what to do.

use chrono::TimeDelta;
use clap::Args;
use serde_json::json;

use super::{Output, migrate, print, process};
use crate::clock::Clock;
use crate::config::Settings;
use crate::crypt::KEY_BYTES;
use crate::error::{Error, Result};
use crate::flow::sealed;
use crate::limits;
use crate::shutdown::Shutdown;
use crate::store::{self, Store};
use crate::telemetry;

#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grade {
    Good,
    Warn,
    Bad,
}

/// A finding: the check, its result, and the remedy if it is not good.
struct Finding {
    grade: Grade,
    what: &'static str,
    stands: String,
    remedy: &'static str,
}

fn finding(grade: Grade, what: &'static str, stands: impl Into<String>, remedy: &'static str) -> Finding {
    Finding { grade, what, stands: stands.into(), remedy }
}

fn grade_if(bad: bool, grade: Grade) -> Grade {
    if bad { grade } else { Grade::Good }
}

/// `notihub doctor`: runs all checks and prints the findings. Returns the exit code: 1 if a finding is bad.
///
/// # Errors
/// `Error::Usage` if the log settings are invalid. Failed checks are findings, not errors.
pub async fn run(args: Doctor, output: Output) -> Result<u8> {
    let settings = args.settings;
    telemetry::start_logs(&settings.log)?;
    let mut findings = Vec::new();
    match settings.check() {
        Ok(()) => {
            findings.push(finding(Grade::Good, "settings", "the settings given to this command are consistent", ""))
        }
        Err(e) => findings.push(finding(Grade::Bad, "settings", e.to_string(), "change one of the two settings")),
    }
    let master_keys = process::master_keys(&settings.database).unwrap_or_default();
    match examine_database(&settings, &master_keys).await {
        Ok(more) => findings.extend(more),
        Err(e) => {
            findings.push(finding(Grade::Bad, "database", e.to_string(), "start it, or give the right --database-url"))
        }
    }
    let sealed = !master_keys.is_empty();
    let stands = match sealed {
        true => "given to this command",
        false => {
            "none given to this command: without one the hub encrypts with a key in the database, so a backup holds it"
        }
    };
    let remedy = "if the hub has one, give it to `doctor` as well; if not, give --master-key (`openssl rand -base64 \
        32`) \
                  to every process, then run `notihub key reseal`";
    findings.push(finding(grade_if(!sealed, Grade::Warn), "master key", stands, remedy));
    findings.extend(examine_providers(&settings).await);
    let worst = findings.iter().map(|f| f.grade).max().unwrap_or(Grade::Good);
    match output {
        Output::Json => {
            let rows: Vec<_> = findings
                .iter()
                .map(|f| json!({"check": f.what, "grade": word(f.grade), "stands": f.stands, "remedy": f.remedy}))
                .collect();
            print::json(&json!({"grade": word(worst), "findings": rows}));
        }
        Output::Text => findings.iter().for_each(print_finding),
    }
    Ok(u8::from(worst == Grade::Bad))
}

fn word(grade: Grade) -> &'static str {
    match grade {
        Grade::Good => "ok",
        Grade::Warn => "warn",
        Grade::Bad => "fail",
    }
}

fn print_finding(f: &Finding) {
    let style = match f.grade {
        Grade::Good => print::GOOD,
        Grade::Warn => print::WARN,
        Grade::Bad => print::BAD,
    };
    anstream::println!(
        "{} {:<12} {}",
        print::paint(style, &format!("{:<4}", word(f.grade))),
        f.what,
        print::printable(&f.stands)
    );
    if f.grade != Grade::Good {
        anstream::println!("                  → {}", f.remedy);
    }
}

async fn examine_database(settings: &Settings, master_keys: &[[u8; KEY_BYTES]]) -> Result<Vec<Finding>> {
    let url = process::database_url(&settings.database)?;
    let store = match process::reading_store(&settings.database, &url).await {
        Ok(store) => store,
        // Stop here: behind a pooler, session settings would stay in connections that other clients use.
        Err(Error::Setup(why)) => {
            let remedy = "correct --database-url, or the pooler between here and PostgreSQL";
            return Ok(vec![finding(Grade::Bad, "sessions", why, remedy)]);
        }
        Err(e) => return Err(e),
    };
    let mut findings = examine_server(settings, &store).await?;
    findings.push(examine_writes(settings, &store, &url).await?);
    let asked = Clock::host_now();
    let database_now = store::hub::database_time(store.api()).await?;
    let off = Clock::system().calibrate(asked, database_now, Clock::host_now()).num_milliseconds().abs();
    let grade = grade_if(off > 1_000, Grade::Warn);
    let stands = format!("{off} ms from the database's");
    findings.push(finding(grade, "clock", stands, "run NTP on both; notihub corrects for it meanwhile"));
    match store.migrations_missing().await {
        Ok(0) => findings.push(finding(Grade::Good, "schema", "up to date", "")),
        Ok(n) => {
            findings.push(finding(Grade::Bad, "schema", format!("{n} migrations missing"), "run `notihub migrate`"));
            return Ok(findings);
        }
        Err(e) => {
            findings.push(finding(Grade::Bad, "schema", e.to_string(), "run the newer notihub"));
            return Ok(findings);
        }
    }
    findings.extend(examine_roles(&store).await?);
    findings.push(examine_sealed(&store, master_keys).await?);
    let standing = store::partition::status(store.api()).await?;
    let audit_strays = store::partition::has_audit_strays(store.api()).await?;
    let ahead = standing.until.map(|until| (until - Clock::system().now()).num_days());
    let short = ahead.is_none_or(|days| days < 14) || standing.in_default || audit_strays;
    let stands = format!(
        "made {} days ahead{}{}",
        ahead.unwrap_or(0),
        if standing.in_default { ", rows in the default" } else { "" },
        if audit_strays { ", entries of the audit log in its default" } else { "" }
    );
    findings.push(finding(
        grade_if(short, Grade::Bad),
        "partitions",
        stands,
        "run `notihub migrate`, and keep a hub running",
    ));
    let workers = store::worker::list(store.api(), Clock::system().now() - TimeDelta::seconds(30)).await?;
    let stands = format!("{} seen in the last 30 s", workers.len());
    findings.push(finding(
        grade_if(workers.is_empty(), Grade::Warn),
        "workers",
        stands,
        "start `notihub up` or `notihub work`",
    ));
    let waiting = store::sql_intake::backlog(store.api(), limits::RELAY_COUNT).await?;
    let stands = match waiting.requests {
        0 => "no request waits".to_owned(),
        n => format!("{n} wait, the oldest for {} s", waiting.oldest.num_seconds()),
    };
    let grade = grade_if(waiting.oldest > TimeDelta::minutes(1), Grade::Warn);
    findings.push(finding(grade, "sql intake", stands, "start a worker, or find the failure in its log"));
    Ok(findings)
}

/// Checks whether the server takes writes, and for a standby how far it is behind.
async fn examine_writes(settings: &Settings, store: &Store, url: &str) -> Result<Finding> {
    let replica = store::hub::replication_status(store.api()).await?;
    if replica.in_recovery {
        let seconds = replica
            .replayed_ago_s
            .map_or("nothing replayed yet".into(), |s| format!("its last transaction was committed {s:.0} s ago"));
        let (behind, link) = (replica.behind_bytes.unwrap_or(0), replica.connected);
        let stands = format!(
            "hot standby, {behind} bytes received and not yet replayed, {seconds}{}",
            if link { "" } else { ", not connected to its primary: how far it is behind is unknown" }
        );
        let remedy = "enough for `doctor`, `fsck` and `migrate --check`; name the primary for commands that write";
        return Ok(finding(Grade::Warn, "writes", stands, remedy));
    }
    let began = std::time::Instant::now();
    let proven = match process::proven_store(&settings.database, url).await {
        Ok(store) => store.prove_writes().await,
        Err(e) => Err(e),
    };
    Ok(match proven {
        Ok(()) => {
            let stands = format!("a commit was confirmed after {} ms", began.elapsed().as_millis());
            finding(Grade::Good, "writes", stands, "")
        }
        Err(e) => {
            let remedy = "correct what it names. A promoted server that still has synchronous_standby_names waits for \
                a \
                 standby that is gone: alter system reset synchronous_standby_names, then select pg_reload_conf()";
            finding(Grade::Bad, "writes", e.to_string(), remedy)
        }
    })
}

async fn examine_roles(store: &Store) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let standing = store::role::check(store.api()).await?;
    findings.push(match standing.fault() {
        Some(fault) => finding(Grade::Warn, "role", fault, migrate::SEPARATE),
        None => {
            let stands = format!("'{}' owns nothing, and only reads and adds to the audit log", standing.name);
            finding(Grade::Good, "role", stands, "")
        }
    });
    let missing = store::role::missing_grants(store.api()).await?;
    let roles = store::role::missing_roles(store.api()).await?;
    let stands = match (roles.as_slice(), missing.as_slice()) {
        ([], []) => "as the hub needs them".to_owned(),
        ([], [first, ..]) => format!("{} are not right: {first}", missing.len()),
        (roles, _) => format!("there is no role {}", roles.join(", ")),
    };
    // An owner or a superuser has these rights without a grant.
    let stops = if standing.fault().is_some() { Grade::Warn } else { Grade::Bad };
    let wrong = !missing.is_empty() || !roles.is_empty();
    findings.push(finding(grade_if(wrong, stops), "rights", stands, "run `notihub migrate`"));
    if standing.public_creates {
        let stands = "every login of the database may create functions and tables in the schema public";
        findings.push(finding(Grade::Warn, "schema", stands, "revoke create on schema public from public"));
    }
    let grants = store::sql_intake::grants(store.api(), None).await?;
    let carried = grants.iter().filter(|grant| grant.carried_over).count();
    let stands = match carried {
        0 => format!("{} grants, each given by an admin", grants.len()),
        n => format!("{n} of {} grants are from before logins were tied to partners", grants.len()),
    };
    let remedy = "`notihub partner grant PARTNER --role LOGIN` confirms one, `notihub partner revoke --carried-over \
        --role \
                  LOGIN` ends the others";
    findings.push(finding(grade_if(carried > 0, Grade::Warn), "intake roles", stands, remedy));
    Ok(findings)
}

async fn examine_sealed(store: &Store, master_keys: &[[u8; KEY_BYTES]]) -> Result<Finding> {
    let keyring = sealed::keyring(store, master_keys).await?;
    let kinds = sealed::open_one_of_each(store, &keyring, Clock::system().now()).await?;
    let told = |kind: &sealed::SealedKind| match (kind.opened, kind.unopened) {
        (0, 0) => format!("{}: none", kind.name),
        (_, 0) => format!("{} open", kind.name),
        _ => format!("{} DO NOT OPEN", kind.name),
    };
    let stands = kinds.iter().map(told).collect::<Vec<_>>().join(", ");
    let bad = kinds.iter().any(|kind| kind.unopened > 0);
    Ok(finding(grade_if(bad, Grade::Bad), "sealed", stands, sealed::REMEDY))
}

async fn examine_server(settings: &Settings, store: &Store) -> Result<Vec<Finding>> {
    let rows = store::hub::server_settings(store.api()).await?;
    let value = |name: &str| rows.iter().find(|s| s.name == name).map_or("", |s| s.setting.as_str());
    let mut findings = vec![finding(Grade::Good, "database", format!("PostgreSQL {}", value("server_version")), "")];
    if let Err(Error::Setup(why)) = process::check_durability(store, false).await {
        let grade = if settings.database.accept_loss { Grade::Warn } else { Grade::Bad };
        findings.push(finding(grade, "durability", why, "alter system set …, then select pg_reload_conf()"));
    } else {
        findings.push(finding(Grade::Good, "durability", "fsync, full_page_writes and synchronous_commit are on", ""));
    }
    let most: u32 = value("max_connections").parse().unwrap_or(0);
    let ours = settings.database.api_connections
        + settings.database.intake_connections
        + settings.database.worker_connections
        + settings.database.webhook_connections
        + 2;
    let stands = format!("{most} allowed, {ours} used by each process that serves and works");
    let remedy = "raise max_connections, or lower --api-connections, --intake-connections, --worker-connections and \
                  --webhook-connections";
    findings.push(finding(grade_if(most < ours * 2, Grade::Warn), "connections", stands, remedy));
    let vacuum = value("autovacuum") == "on" && value("track_counts") == "on";
    let stands = if vacuum { "on" } else { "off: dead rows pile up" };
    findings.push(finding(grade_if(!vacuum, Grade::Bad), "autovacuum", stands, "alter system set autovacuum = on"));
    let encoding = value("server_encoding");
    let remedy = "make a database with encoding UTF8";
    findings.push(finding(grade_if(encoding != "UTF8", Grade::Bad), "encoding", encoding, remedy));
    let age = store::hub::oldest_snapshot_age(store.api()).await?.unwrap_or(0.0);
    let stands = format!("oldest snapshot {age:.0} s");
    let remedy = "find the long transaction in pg_stat_activity; dead rows cannot be cleaned while it lives";
    findings.push(finding(grade_if(age > 600.0, Grade::Warn), "snapshots", stands, remedy));
    Ok(findings)
}

/// The remedy when a provider is missing from the command's settings.
const OF_THE_HUB: &str = "give this command the hub's settings (for e-mail --smtp-host); `notihub provider list` asks \
    the \
                          running hub";

async fn examine_providers(settings: &Settings) -> Vec<Finding> {
    let providers = match process::providers(settings, &Clock::system(), &Shutdown::new()) {
        Ok(providers) => providers,
        Err(e) => return vec![finding(Grade::Bad, "providers", e.to_string(), "change the provider's settings")],
    };
    let mut findings = Vec::new();
    for account in providers.iter() {
        let provider = &account.provider;
        findings.push(match provider.check().await {
            Ok(_) if process::is_mock(settings, account) => {
                let channels: Vec<&str> = account.capabilities.iter().map(|c| c.channel.as_str()).collect();
                let stands = format!("{}: none set for this command; a hub without one only logs", channels.join(", "));
                finding(Grade::Warn, "provider", stands, OF_THE_HUB)
            }
            Ok(stands) => finding(Grade::Good, "provider", format!("{}: {stands}", provider.name()), ""),
            Err(why) => {
                let stands = format!("{}: {why}", provider.name());
                finding(Grade::Bad, "provider", stands, "check its address, its credentials and the network")
            }
        });
    }
    if settings.slack.slack_destinations.is_empty() {
        findings.push(finding(Grade::Warn, "provider", "slack: no destination set for this command", OF_THE_HUB));
    }
    findings
}
