//! `notihub user`: a partner's own people.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::partner::{find as find_partner, print_progress};
use super::{Output, print, process};
use crate::config::{Database, Log};
use crate::error::{Error, Result};
use crate::flow::erase::Progress;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::principal::Actor;
use crate::model::access::user::client_name;
use crate::model::partner::Partner;
use crate::model::user::{User, UserState};
use crate::{flow, limits, store, telemetry};

#[derive(Debug, Args)]
#[command(after_help = "Flags for the database come before the subcommand: notihub user --data-dir D list shop\n\nA \
user belongs to one partner, and is named by the partner's own id of it or by its userId:\n  notihub user list shop\n  \
notihub user show shop u-1\n  notihub user sign-out shop u-1      its tokens are void at once\n\n\
Users are made when a partner's server names them in a token, or sign up themselves: `notihub docs users`.")]
pub struct UserCommand {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    log: Log,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists the users of a partner, newest first.
    List {
        /// The partner's name or id.
        partner: String,
        /// Only users in this state: ACTIVE, BLOCKED or DELETED.
        #[arg(long, value_name = "STATE", value_parser = parse_state)]
        state: Option<UserState>,
        /// Only users made before this one, by its userId.
        #[arg(long, value_name = "ID", value_parser = parse_id)]
        before: Option<Tsid>,
        /// Users at most.
        #[arg(
            long,
            value_name = "N",
            default_value_t = limits::PAGE_DEFAULT,
            value_parser = clap::value_parser!(i64).range(1..=limits::HOUSEKEEPING_BATCH)
        )]
        limit: i64,
    },
    /// Shows a user with its devices.
    Show(Named),
    /// Blocks a user: it can neither sign in nor use a token, and its tokens are void.
    Block(Named),
    /// Lets a blocked user sign in again.
    Unblock(Named),
    /// Ends all sign-ins of a user and voids its access tokens, also those that its partner's server signed.
    SignOut(Named),
    /// Removes all that is personal of a user, the in-app messages to it, and its e-mail address and phone number from
    /// every table of the partner.
    Erase(Named),
}

/// A user on the command line.
#[derive(Debug, Args)]
pub struct Named {
    /// The partner's name or id.
    partner: String,
    /// The partner's own id of the user, or its userId.
    user: String,
}

fn parse_state(text: &str) -> std::result::Result<UserState, String> {
    text.parse().map_err(|()| "is none of ACTIVE, BLOCKED, DELETED".into())
}

fn parse_id(text: &str) -> std::result::Result<Tsid, String> {
    text.parse().map_err(|_| "is not an id of 13 characters".into())
}

/// `notihub user`: runs the subcommand at the database. Returns the exit code; `erase` returns 1 if data is left.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Setup` for a partner or user that does not exist.
pub async fn run(args: UserCommand, output: Output) -> Result<u8> {
    telemetry::start_logs(&args.log)?;
    let (hub, actor) = process::open_for_command(&args.database).await?;
    let done = act(&hub, &actor, args.action, output).await;
    hub.shutdown.stop();
    hub.store.close().await;
    done
}

async fn act(hub: &Hub, actor: &Actor, action: Action, output: Output) -> Result<u8> {
    match action {
        Action::List { partner, state, before, limit } => {
            let partner = find_partner(hub, &partner).await?;
            let below = before.unwrap_or(Tsid(i64::MAX));
            let (shard, partner_id) = (partner.shard, partner.partner_id);
            looked(hub, actor, &format!("users of {partner_id}")).await?;
            let users = store::user::list(hub.store.api(), shard, partner_id, below, state, limit).await?;
            match output {
                Output::Json => print::json(&json!({"items": users.iter().map(to_json).collect::<Vec<_>>()})),
                Output::Text => users.iter().for_each(print_line),
            }
        }
        Action::Show(named) => {
            let (_, user) = find(hub, &named).await?;
            looked(hub, actor, &client_name(user.user_id)).await?;
            let devices = store::device::list(hub.store.api(), user.shard, user.user_id).await?;
            match output {
                Output::Json => {
                    let device = |d: &store::device::DeviceRow| {
                        json!({"deviceId": d.device_id.to_string(), "platform": d.platform.as_str(), "app": d.app,
                            "createdAt": d.created_at.to_rfc3339(),
                            "disabledAt": d.disabled_at.map(|at| at.to_rfc3339()), "reason": d.reason})
                    };
                    let mut value = to_json(&user);
                    value["devices"] = devices.iter().map(device).collect();
                    print::json(&value);
                }
                Output::Text => {
                    print_line(&user);
                    let or_none = |text: &Option<String>| print::printable(text.as_deref().unwrap_or("none"));
                    anstream::println!("  e-mail {}, phone {}", or_none(&user.email), or_none(&user.phone));
                    anstream::println!("  made {}, {} devices", user.created_at.to_rfc3339(), devices.len());
                    for device in devices {
                        anstream::println!("  {} {}", device.device_id, device.platform.as_str());
                    }
                }
            }
        }
        Action::Block(named) => set_state(hub, actor, &named, UserState::Blocked, output).await?,
        Action::Unblock(named) => set_state(hub, actor, &named, UserState::Active, output).await?,
        Action::SignOut(named) => {
            let (partner, user) = find(hub, &named).await?;
            flow::user::profile::sign_out(hub, actor.owner_permit(&partner)?, &user)
                .await
                .map_err(|e| gone(e, &named))?;
            match output {
                Output::Json => print::json(&json!({"userId": user.user_id.to_string(), "signedOut": true})),
                Output::Text => anstream::println!("{} is signed out everywhere", user.user_id),
            }
        }
        Action::Erase(named) => return erase(hub, actor, &named, output).await,
    }
    Ok(0)
}

/// Records in the audit log that personal data was shown.
async fn looked(hub: &Hub, actor: &Actor, object: &str) -> Result<()> {
    let now = hub.clock.now();
    let since = now - limits::LOOKS_TOGETHER;
    store::audit::record_view(hub.store.api(), hub.next_id(), now, actor, object, since).await
}

async fn set_state(hub: &Hub, actor: &Actor, named: &Named, state: UserState, output: Output) -> Result<()> {
    let (partner, user) = find(hub, named).await?;
    let permit = actor.owner_permit(&partner)?;
    let user = flow::user::profile::set_state(hub, permit, &user, state).await.map_err(|e| gone(e, named))?;
    match output {
        Output::Json => print::json(&to_json(&user)),
        Output::Text => print_line(&user),
    }
    Ok(())
}

async fn erase(hub: &Hub, actor: &Actor, named: &Named, output: Output) -> Result<u8> {
    let (partner, user) = find(hub, named).await?;
    let permit = actor.owner_permit(&partner)?;
    let report = |progress: Progress<'_>| print_progress(progress, output);
    let mut sum = flow::erase::erase_user(hub, permit, &user, report).await.map_err(|e| gone(e, named))?;
    for address in user.email.iter().chain(&user.phone) {
        let partner_id = Some(partner.partner_id);
        sum.add(flow::erase::erase(hub, actor.admin_permit()?, address, partner_id, report).await?);
    }
    let is_done = sum.left.is_empty() && sum.in_flight == 0 && sum.unopened == 0;
    match output {
        Output::Json => print::json(&json!({
            "userId": user.user_id.to_string(),
            "messages": sum.messages,
            "canceled": sum.canceled,
            "inFlight": sum.in_flight,
            "unopened": sum.unopened,
            "searchedRows": sum.searched,
            "left": sum.left.iter().map(|(place, n)| json!({"place": place, "rows": n})).collect::<Vec<_>>(),
        })),
        Output::Text => {
            anstream::println!(
                "{} is erased, with {} messages to it; {} deliveries were canceled before they were sent",
                user.user_id,
                sum.messages,
                sum.canceled
            );
            for (place, rows) in &sum.left {
                anstream::println!("{} {rows} rows of {place} still contain one", print::paint(print::BAD, "left"));
            }
            if sum.in_flight + sum.unopened > 0 {
                anstream::println!(
                    "{} being sent, {} encrypted with a key that was not given: see `notihub partner erase --help`",
                    sum.in_flight,
                    sum.unopened
                );
            }
        }
    }
    Ok(u8::from(!is_done))
}

/// Finds the user that a command names, and its partner.
///
/// # Errors
/// `Error::Setup` for a partner or user that does not exist; `Error::Unavailable` if the database cannot be reached.
pub async fn find(hub: &Hub, named: &Named) -> Result<(Partner, User)> {
    let partner = find_partner(hub, &named.partner).await?;
    let user = flow::user::profile::find(hub, &partner, &named.user).await.map_err(|e| gone(e, named))?;
    Ok((partner, user))
}

/// Names the user that does not exist.
fn gone(e: Error, named: &Named) -> Error {
    match e {
        Error::NotFound => Error::Setup(format!(
            "the partner '{}' has no user '{}'; `notihub user list {}` shows its users",
            named.partner, named.user, named.partner
        )),
        e => e,
    }
}

fn to_json(user: &User) -> Value {
    json!({
        "userId": user.user_id.to_string(),
        "externalId": user.external_id,
        "username": user.username,
        "nickname": user.nickname,
        "state": user.state.as_str(),
        "email": user.email,
        "phone": user.phone,
        "lastSeenAt": user.last_seen_at.map(|at| at.to_rfc3339()),
        "createdAt": user.created_at.to_rfc3339(),
    })
}

fn print_line(user: &User) {
    let name = user.external_id.as_deref().or(user.username.as_deref()).unwrap_or("-");
    let seen = user.last_seen_at.map_or("never seen".to_owned(), |at| format!("seen {}", at.to_rfc3339()));
    anstream::println!(
        "{} {:<8} {:<24} {} ({seen})",
        user.user_id,
        user.state.as_str(),
        print::printable(name),
        print::printable(&user.nickname)
    );
}
