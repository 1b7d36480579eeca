//! `notihub partner`: partners, their limits and keys.

use chrono::TimeDelta;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Output, print, process};
use crate::config::{Database, Log};
use crate::error::{Error, Result};
use crate::flow::erase::Progress;
use crate::flow::partner::{Credentials, OVERLAP_MOST, PartnerChange};
use crate::hub::Hub;
use crate::limits;
use crate::model::access::permit::AdminPermit;
use crate::model::access::principal::Actor;
use crate::model::access::role::StaffRole;
use crate::model::channel::Channel;
use crate::model::json::{self, Faults};
use crate::model::partner::{Partner, PartnerStatus};
use crate::model::text::composed;
use crate::{flow, store, telemetry};

#[derive(Debug, Args)]
#[command(after_help = "Flags for the database come before the subcommand: notihub partner --data-dir D create \
        orders\n\nFirst steps on your \
own installation:\n  notihub partner create orders\n  \
TOKEN=$(curl -s http://127.0.0.1:8080/v1/auth/token -H 'content-type: application/json' \\\n    \
-d '{\"clientId\": \"…\", \"clientSecret\": \"…\"}' | grep -o '\"accessToken\":\"[^\"]*' | cut -d'\"' -f4)\n  \
curl -s http://127.0.0.1:8080/v1/messages -H \"authorization: Bearer $TOKEN\" -H 'content-type: application/json' -d \
'…'\n\n\
These commands work at the database and are in the audit log under your name. An admin can do the same over HTTP:\n  \
notihub partner bootstrap      makes the first admin")]
pub struct PartnerCommand {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    log: Log,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes the first admin, who can then do everything else over HTTP.
    Bootstrap,
    /// Makes a partner and its key. The secret is printed once and cannot be read again.
    Create {
        /// The partner's name. Every partner has a different one.
        #[arg(value_parser = parse_name)]
        name: String,
        #[command(flatten)]
        change: PartnerFlags,
        /// The time zone by which daily statistics are counted. It cannot be changed later.
        #[arg(long, value_name = "ZONE")]
        time_zone: Option<String>,
    },
    /// Lists all partners.
    List,
    /// Shows a partner.
    Show {
        /// The partner's name or id.
        partner: String,
    },
    /// Changes a partner. Flags that are left out change nothing.
    Set {
        /// The partner's name or id.
        partner: String,
        /// The new name.
        #[arg(long, value_name = "NAME", value_parser = parse_name)]
        name: Option<String>,
        /// ACTIVE or INACTIVE. An inactive partner cannot sign in; messages that it posted before are delivered.
        #[arg(long, value_name = "STATUS", value_parser = parse_status)]
        status: Option<PartnerStatus>,
        #[command(flatten)]
        change: PartnerFlags,
    },
    /// Makes a new secret for a partner's key. The secret is printed once and cannot be read again.
    Rotate {
        /// The partner's name or id.
        partner: String,
        /// Seconds for which the former secret and its tokens stay valid; 0: they are void at once.
        #[arg(
            long,
            default_value_t = 0,
            value_name = "S",
            value_parser = clap::value_parser!(i64).range(0..=OVERLAP_MOST.num_seconds())
        )]
        overlap_seconds: i64,
    },
    /// Makes a new key with which the partner's server signs tokens for its users. It is printed once and cannot be
    /// read again.
    #[command(after_help = "Sign with HS256, with the whole key as the secret. Header and claims of a token:\n  \
{\"typ\": \"JWT\", \"alg\": \"HS256\", \"kid\": KID}\n  \
{\"iss\": PARTNER_ID, \"aud\": \"notihub/user\", \"sub\": YOUR_USER_ID, \"iat\": NOW, \"exp\": NOW + 3600}\n\n\
`notihub docs users` has samples.")]
    UserKey {
        /// The partner's name or id.
        partner: String,
        /// Seconds for which the former key stays valid; 0: its tokens are void at once.
        #[arg(
            long,
            default_value_t = 0,
            value_name = "S",
            value_parser = clap::value_parser!(i64).range(0..=OVERLAP_MOST.num_seconds())
        )]
        overlap_seconds: i64,
    },
    /// Lets a database login enqueue messages for a partner with the SQL function notihub.enqueue.
    #[command(after_help = "Example:\n  notihub partner grant orders --role orders_service\n\nThe login is a \
role of PostgreSQL; members of the role may then enqueue as well. It must also be a member of notihub_enqueue: the \
command \
adds it if --migrate-database-url allows it, and otherwise prints the statement to run.")]
    Grant {
        /// The partner's name or id.
        partner: String,
        /// A login or role of the database.
        #[arg(long, value_name = "LOGIN")]
        role: String,
    },
    /// Ends a login's right to enqueue for a partner. Messages that it enqueued before are delivered.
    Revoke {
        /// The partner's name or id; left out: all partners.
        partner: Option<String>,
        /// A login or role of the database.
        #[arg(long, value_name = "LOGIN")]
        role: String,
        /// End only the grants from before logins were tied to partners that no admin has confirmed.
        #[arg(long)]
        carried_over: bool,
    },
    /// Removes a person's data from every table, and proves that it is gone.
    #[command(after_help = format!("Not looked for: {NOT_LOOKED_FOR}."))]
    Erase {
        /// The person's address: an e-mail address, or a phone number in any notation.
        #[arg(long, value_name = "ADDRESS")]
        recipient: String,
        /// Erase only the data of this partner, by name or id.
        #[arg(long, value_name = "PARTNER")]
        partner: Option<String>,
    },
}

#[derive(Debug, Args)]
struct PartnerFlags {
    /// Requests a second; a batch counts as many requests as it has messages [default: 1000].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=limits::PARTNER_TPS_MOST.into()))]
    rate_limit_tps: Option<i32>,
    /// Days for which the partner can read its messages [default: 1].
    #[arg(
        long,
        value_name = "DAYS",
        value_parser = clap::value_parser!(i16).range(1..=limits::PARTNER_DAYS_MOST.into())
    )]
    lookup_days: Option<i16>,
    /// Days after which the content of messages is erased; 0: after the hub's own retention [default: 0].
    #[arg(
        long,
        value_name = "DAYS",
        value_parser = clap::value_parser!(i16).range(0..=limits::PARTNER_DAYS_MOST.into())
    )]
    retention_days: Option<i16>,
    /// The country of phone numbers that are written without one [default: KR].
    #[arg(long, value_name = "CC", value_parser = parse_region)]
    region: Option<String>,
    /// The channels that the partner may use, separated by commas, or `all` [default: all].
    #[arg(long, value_name = "CHANNEL", value_parser = parse_channels)]
    channels: Option<Channels>,
    /// Whether the partner may schedule messages [default: true].
    #[arg(long, value_name = "BOOL")]
    may_schedule: Option<bool>,
    /// Whether the partner may cancel messages [default: true].
    #[arg(long, value_name = "BOOL")]
    may_cancel: Option<bool>,
    /// Encrypt the content of its messages in the database: titles, texts and metadata. Recipients, keys and waiting
    /// requests of the SQL intake are not encrypted [default: false].
    #[arg(long, value_name = "BOOL")]
    encrypt_content: Option<bool>,
    /// Whether its endpoints may receive the content of its messages [default: false].
    #[arg(long, value_name = "BOOL")]
    may_receive_content: Option<bool>,
    /// Whether people may make a user of this partner for themselves, with a username and password [default: false].
    #[arg(long, value_name = "BOOL")]
    sign_up: Option<bool>,
}

#[derive(Debug, Clone)]
struct Channels(Option<Vec<Channel>>);

fn parse_channels(text: &str) -> std::result::Result<Channels, String> {
    if text == "all" {
        return Ok(Channels(None));
    }
    text.split(',').map(str::parse).collect::<std::result::Result<_, _>>().map(|all| Channels(Some(all)))
}

fn parse_status(text: &str) -> std::result::Result<PartnerStatus, String> {
    text.parse().map_err(|()| "is neither ACTIVE nor INACTIVE".into())
}

/// Parses a name by the rules of the API.
///
/// # Errors
/// A text for clap.
pub fn parse_name(text: &str) -> std::result::Result<String, String> {
    let faults = Faults::default();
    let read = json::text(text.into(), "", json::TextRule::line(limits::NAME_CHARS), &faults);
    faults.into_result(read).map_err(|_| format!("a name is one line of up to {} characters", limits::NAME_CHARS))
}

fn parse_region(text: &str) -> std::result::Result<String, String> {
    let right = text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase());
    right.then(|| text.to_owned()).ok_or_else(|| "write two capital letters, as KR".into())
}

impl PartnerFlags {
    fn change(self) -> PartnerChange {
        PartnerChange {
            rate_limit_tps: self.rate_limit_tps,
            lookup_days: self.lookup_days,
            retention_days: self.retention_days.map(|days| (days > 0).then_some(days)),
            region: self.region,
            channels: self.channels.map(|c| c.0),
            may_schedule: self.may_schedule,
            may_cancel: self.may_cancel,
            encrypt_content: self.encrypt_content,
            may_receive_content: self.may_receive_content,
            sign_up: self.sign_up,
            ..PartnerChange::default()
        }
    }
}

/// `notihub partner`: runs the subcommand at the database. Returns the exit code; `erase` returns 1 if data is left.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Setup` for a partner or login that does not exist;
/// `Error::Refused` for a change that is not valid.
pub async fn run(args: PartnerCommand, output: Output) -> Result<u8> {
    telemetry::start_logs(&args.log)?;
    let (hub, actor) = process::open_for_command(&args.database).await?;
    let owner_url = process::owner_url(&args.database)?;
    let done = act(&hub, &actor, args.action, &owner_url, output).await;
    hub.shutdown.stop();
    hub.store.close().await;
    done
}

async fn act(hub: &Hub, actor: &Actor, action: Action, owner_url: &str, output: Output) -> Result<u8> {
    let permit = actor.admin_permit()?;
    match action {
        Action::Bootstrap => bootstrap(hub, permit, output).await?,
        Action::Create { name, change, time_zone } => {
            let change = PartnerChange { name: Some(name), time_zone, ..change.change() };
            let (partner, credentials) = flow::partner::create(hub, permit, change).await?;
            let mut value = to_json(&partner);
            value["clientId"] = credentials.client_id.clone().into();
            value["clientSecret"] = credentials.client_secret.clone().into();
            match output {
                Output::Json => print::json(&value),
                Output::Text => {
                    print_line(&partner);
                    print_secret(&credentials);
                }
            }
        }
        Action::List => {
            let partners = store::partner::list(hub.store.api(), None, i64::MAX).await?;
            match output {
                Output::Json => print::json(&json!({"items": partners.iter().map(to_json).collect::<Vec<_>>()})),
                Output::Text => partners.iter().for_each(print_line),
            }
        }
        Action::Show { partner } => {
            let partner = find(hub, &partner).await?;
            let roles = intake_roles(hub, &partner).await?;
            match output {
                Output::Json => {
                    let mut value = to_json(&partner);
                    value["intakeRoles"] = roles.into();
                    print::json(&value);
                }
                Output::Text => {
                    print_line(&partner);
                    anstream::println!(
                        "  enqueues in SQL: {}",
                        if roles.is_empty() { "no login".into() } else { roles.join(", ") }
                    );
                }
            }
        }
        Action::Grant { partner, role } => {
            grant(hub, permit, &find(hub, &partner).await?, &role, owner_url, output).await?
        }
        Action::Revoke { partner, role, carried_over } => {
            let partner = match partner {
                Some(partner) => Some(find(hub, &partner).await?),
                None => None,
            };
            let ended = flow::partner::revoke_intake(hub, permit, partner.as_ref(), &role, carried_over).await?;
            match output {
                Output::Json => print::json(&json!({"role": role, "ended": ended})),
                Output::Text => anstream::println!("{ended} grants of {} ended", print::printable(&role)),
            }
        }
        Action::Set { partner, name, status, change } => {
            let id = find(hub, &partner).await?.partner_id;
            let change = PartnerChange { name, status, ..change.change() };
            print_partner(&flow::partner::update(hub, permit, id, change).await?, output);
        }
        Action::Rotate { partner, overlap_seconds } => {
            let id = find(hub, &partner).await?.partner_id;
            let made = flow::partner::rotate(hub, permit, id, TimeDelta::seconds(overlap_seconds)).await?;
            print_credentials(&made, output);
        }
        Action::UserKey { partner, overlap_seconds } => {
            let partner = find(hub, &partner).await?;
            let overlap = TimeDelta::seconds(overlap_seconds);
            let made = flow::partner::rotate_user_key(hub, permit, partner.partner_id, overlap).await?;
            match output {
                Output::Json => print::json(&json!({
                    "partnerId": partner.partner_id.to_string(), "kid": made.kid, "userKey": made.key,
                })),
                Output::Text => anstream::println!(
                    "iss      {}\nkid      {}\nuserKey  {}   (shown this once)",
                    partner.partner_id,
                    made.kid,
                    made.key
                ),
            }
        }
        Action::Erase { recipient, partner } => {
            let partner = match partner {
                Some(partner) => Some(find(hub, &partner).await?.partner_id),
                None => None,
            };
            return erase(hub, permit, &recipient, partner, output).await;
        }
    }
    Ok(0)
}

async fn intake_roles(hub: &Hub, partner: &Partner) -> Result<Vec<String>> {
    let grants = store::sql_intake::grants(hub.store.api(), Some(partner.partner_id)).await?;
    Ok(grants.into_iter().map(|grant| print::printable(&grant.role_name)).collect())
}

async fn grant(
    hub: &Hub,
    permit: AdminPermit<'_>,
    partner: &Partner,
    role: &str,
    owner_url: &str,
    output: Output,
) -> Result<()> {
    let may_call = store::sql_intake::may_enqueue(hub.store.api(), role).await?.ok_or_else(|| {
        Error::Setup(format!("there is no role '{role}' in the database: create role … login password '…', then grant"))
    })?;
    flow::partner::grant_intake(hub, permit, partner, role).await?;
    let to_run = match may_call {
        true => None,
        false => {
            let owner = process::open_store(&hub.settings.database, owner_url)?;
            let to_run = store::role::grant_enqueue(&owner, role).await?;
            owner.close().await;
            to_run
        }
    };
    match output {
        Output::Json => print::json(&json!({"partner": partner.name, "role": role, "toRun": to_run})),
        Output::Text => {
            let (role, name) = (print::printable(role), print::printable(&partner.name));
            anstream::println!("{role} may enqueue for {name}");
            if let Some(statement) = to_run {
                let what = print::paint(print::WARN, "to run");
                anstream::println!("{what} by an administrator of the database, so that it may call the function:");
                anstream::println!("  {statement};");
            }
        }
    }
    Ok(())
}

/// Prints the progress of an erasure for people.
pub fn print_progress(progress: Progress<'_>, output: Output) {
    if output == Output::Text {
        match progress {
            Progress::Searched(rows, table) => anstream::eprintln!("{rows} rows searched, now {table} …"),
            Progress::Erased(messages) => anstream::eprintln!("{messages} messages erased …"),
        }
    }
}

async fn erase(
    hub: &Hub,
    permit: AdminPermit<'_>,
    recipient: &str,
    partner: Option<crate::id::Tsid>,
    output: Output,
) -> Result<u8> {
    let report = |progress: Progress<'_>| print_progress(progress, output);
    let erased = flow::erase::erase(hub, permit, recipient, partner, report).await?;
    let is_done = erased.left.is_empty() && erased.in_flight == 0 && erased.unopened == 0;
    match output {
        Output::Json => print::json(&json!({
            "deliveries": erased.deliveries,
            "messages": erased.messages,
            "canceled": erased.canceled,
            "inFlight": erased.in_flight,
            "searchedRows": erased.searched,
            "left": erased.left.iter().map(|(place, n)| json!({"place": place, "rows": n})).collect::<Vec<_>>(),
            "unopened": erased.unopened,
            "unsearchedTables": erased.unsearched,
            "notLookedFor": NOT_LOOKED_FOR,
        })),
        Output::Text => {
            anstream::println!(
                "{} deliveries and {} messages erased, {} of them canceled before they were sent",
                erased.deliveries,
                erased.messages,
                erased.canceled
            );
            let bad = print::paint(print::BAD, "left");
            for (place, rows) in &erased.left {
                anstream::println!("{bad} {rows} rows of {place} still contain it{}", remedy(place));
            }
            if erased.unopened > 0 {
                let n = erased.unopened;
                anstream::println!("{bad} {n} are encrypted with a key that was not given: give it as --master-key");
            }
            if erased.in_flight > 0 {
                anstream::println!(
                    "{} are being sent now, or wait to be sent to other recipients: run this again when they have \
                        been sent",
                    erased.in_flight
                );
            }
            if is_done {
                let (good, rows) = (print::paint(print::GOOD, "proven"), erased.searched);
                anstream::println!("{good} no table contains it any more: {rows} rows were searched");
            }
            if !erased.unsearched.is_empty() {
                anstream::println!("not searched: {}", erased.unsearched.join(", "));
            }
            anstream::println!("not looked for: {NOT_LOOKED_FOR}");
        }
    }
    Ok(u8::from(!is_done))
}

/// The limits of an erasure, printed with each one and in its help.
const NOT_LOOKED_FOR: &str = "names and other data without the address; the address paraphrased, in pictures and \
    files, in other \
encodings (UTF-16, UTF-7, base32), or compressed or encrypted by the partner; texts that contain it only as the end \
of a \
longer address, such as order-kim@example.com, which may be another person's (ids, keys and labels are erased then); \
the \
database's backups, write-ahead log and logs; data that providers and webhooks received";

/// The remedy for data that an erasure left in a table.
fn remedy(place: &str) -> &'static str {
    match place.split('.').next().unwrap_or_default() {
        "audit" => ": entries of the audit log cannot be changed; they are dropped after --audit-retention-days",
        "endpoints" => ": change the endpoint with PATCH /v1/webhooks/{id}",
        "partners" | "keys" => ": rename it with `notihub partner set`, or make another key",
        "redrives" => ": they are deleted --retention-days after their job has ended",
        "notihub" => ": they are requests that are not messages yet; run this again",
        "messages" | "deliveries" | "attempts" | "receipts" | "provider_refs" => {
            ": run this again when they have been sent"
        }
        _ => "",
    }
}

async fn bootstrap(hub: &Hub, permit: AdminPermit<'_>, output: Output) -> Result<()> {
    if store::key::any_admin(hub.store.api()).await? {
        return Err(Error::Setup(
            "an admin exists already; `notihub key create --role ADMIN NAME` makes another one, `notihub key rotate` \
             replaces a lost secret"
                .into(),
        ));
    }
    let made = flow::partner::create_key(hub, permit, StaffRole::Admin, "first admin").await?;
    print_credentials(&made, output);
    Ok(())
}

/// Finds a partner by name or id.
///
/// # Errors
/// `Error::Setup` if there is none; `Error::Unavailable` if the database cannot be reached.
pub async fn find(hub: &Hub, wanted: &str) -> Result<Partner> {
    let db = hub.store.api();
    let mut found = store::partner::find_by_name(db, &composed(wanted.to_owned())).await?;
    if let (None, Ok(id)) = (&found, wanted.parse()) {
        found = store::partner::get(db, id).await?;
    }
    found.ok_or_else(|| Error::Setup(format!("there is no partner '{wanted}'; `notihub partner list` shows all")))
}

fn to_json(p: &Partner) -> Value {
    let mut value = flow::partner::audit_view(p);
    value["partnerId"] = p.partner_id.to_string().into();
    value
}

fn print_partner(p: &Partner, output: Output) {
    match output {
        Output::Json => print::json(&to_json(p)),
        Output::Text => print_line(p),
    }
}

fn print_line(p: &Partner) {
    let channels = p
        .channels
        .as_ref()
        .map_or("every channel".to_owned(), |all| all.iter().map(|c| c.as_str()).collect::<Vec<_>>().join(", "));
    let retention = p.retention_days.map_or(String::new(), |d| format!(", content kept {d} days"));
    anstream::println!(
        "{} {:<20} {:<8} {}/s, sees {} days, {}, {channels}{retention}{}{}",
        p.partner_id,
        print::printable(&p.name),
        p.status.as_str(),
        p.rate_limit_tps,
        p.lookup_days,
        p.time_zone,
        if p.encrypt_content { ", encrypted" } else { "" },
        if p.sign_up { ", sign-up" } else { "" },
    );
}

/// Prints credentials for people. The secret is printed once.
pub fn print_secret(made: &Credentials) {
    anstream::println!("clientId      {}\nclientSecret  {}   (shown this once)", made.client_id, made.client_secret);
}

/// Prints credentials in the wanted form.
pub fn print_credentials(made: &Credentials, output: Output) {
    match output {
        Output::Json => print::json(&json!({"clientId": made.client_id, "clientSecret": made.client_secret})),
        Output::Text => print_secret(made),
    }
}
