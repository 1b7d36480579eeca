//! `notihub key`: keys of operators and admins, the keys that sign tokens, and encryption at rest.

use chrono::TimeDelta;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::partner::{parse_name, print_credentials};
use super::{Output, print, process};
use crate::config::{Database, Log};
use crate::error::{Error, Result};
use crate::flow::partner::OVERLAP_MOST;
use crate::hub::Hub;
use crate::model::access::principal::Actor;
use crate::model::access::role::Role;
use crate::{flow, store, telemetry};

#[derive(Debug, Args)]
pub struct KeyCommand {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    log: Log,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes a key for an operator or an admin. The secret is printed once and cannot be read again.
    Create {
        /// The name of the person or program that uses the key.
        #[arg(value_parser = parse_name)]
        name: String,
        /// OPERATOR reads everything and acts on deliveries; ADMIN also changes partners and keys.
        #[arg(long, default_value = "OPERATOR", value_name = "ROLE")]
        role: Role,
    },
    /// Lists all keys.
    List,
    /// Makes a new secret for a key. The secret is printed once and cannot be read again.
    Rotate {
        client_id: String,
        /// Seconds for which the former secret and its tokens stay valid; 0: they are void at once.
        #[arg(
            long,
            default_value_t = 0,
            value_name = "S",
            value_parser = clap::value_parser!(i64).range(0..=OVERLAP_MOST.num_seconds())
        )]
        overlap_seconds: i64,
    },
    /// Revokes a key: its secrets and tokens are void at once.
    Revoke { client_id: String },
    /// Makes a new key for signing tokens. Tokens signed before stay valid; the new key is used once every process has
    /// read it.
    RotateSigning {
        /// Use the new key at once and void all access tokens: for a signing key that was stolen.
        #[arg(long)]
        at_once: bool,
    },
    /// Encrypts everything again under the first of the given master keys, while the hub runs. Afterwards the other
    /// keys can be removed.
    Reseal,
}

/// `notihub key`: runs the subcommand at the database. Returns the exit code.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Setup` for a key that does not exist, or data that
/// cannot be decrypted.
pub async fn run(args: KeyCommand, output: Output) -> Result<u8> {
    telemetry::start_logs(&args.log)?;
    let (hub, actor) = process::open_for_command(&args.database).await?;
    let done = act(&hub, &actor, args.action, output).await;
    hub.shutdown.stop();
    hub.store.close().await;
    done.map(|()| 0)
}

async fn act(hub: &Hub, actor: &Actor, action: Action, output: Output) -> Result<()> {
    let permit = actor.admin_permit()?;
    let say = |value: Value, text: String| match output {
        Output::Json => print::json(&value),
        Output::Text => anstream::println!("{text}"),
    };
    match action {
        Action::Create { role: Role::Partner, .. } => {
            return Err(Error::Usage("a partner's key comes with the partner: `notihub partner create NAME`".into()));
        }
        Action::Create { name, role: Role::Staff(role) } => {
            print_credentials(&flow::partner::create_key(hub, permit, role, &name).await?, output);
        }
        Action::List => {
            let keys = store::key::list(hub.store.api()).await?;
            let rows: Vec<Value> = keys
                .iter()
                .map(|k| {
                    json!({"clientId": k.client_id, "role": k.role.as_str(), "name": k.name,
                        "partnerId": k.partner_id.map(|id| id.to_string()), "revoked": k.revoked_at.is_some()})
                })
                .collect();
            let line = |k: &store::key::ListedKey| {
                let revoked = if k.revoked_at.is_some() { "  revoked" } else { "" };
                format!("{} {:<9} {}{revoked}", k.client_id, k.role.as_str(), print::printable(&k.name))
            };
            say(json!({"items": rows}), keys.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        Action::Rotate { client_id, overlap_seconds } => {
            let made = flow::partner::rotate_key(hub, permit, &client_id, TimeDelta::seconds(overlap_seconds)).await;
            print_credentials(&made.map_err(|e| name_missing_key(e, &client_id))?, output);
        }
        Action::Revoke { client_id } => {
            flow::partner::revoke_key(hub, permit, &client_id).await.map_err(|e| name_missing_key(e, &client_id))?;
            say(json!({"revoked": client_id}), format!("{client_id} is revoked"));
        }
        Action::RotateSigning { at_once } => {
            let kid = flow::sign_in::rotate_signing_key(hub, permit, at_once).await?;
            let text = if at_once {
                "is used now; all access tokens signed before are void"
            } else {
                "is used in five minutes"
            };
            say(json!({"kid": kid, "atOnce": at_once}), format!("{kid} {text}"));
        }
        Action::Reseal => {
            let done = flow::reseal::reseal(hub, permit).await?;
            let (keys, messages, endpoints) = (done.signing_keys, done.messages, done.endpoints);
            let (user_keys, devices, chat) = (done.user_keys, done.devices, done.chat_contents);
            let text = format!(
                "{keys} signing keys, {messages} messages, {endpoints} endpoints, user keys of {user_keys} partners, \
                 {devices} devices and {chat} messages of rooms encrypted again"
            );
            let value = json!({"signingKeys": keys, "messages": messages, "endpoints": endpoints,
                "userKeys": user_keys, "devices": devices, "chatContents": chat, "unopened": done.unopened});
            say(value, text);
            if done.unopened > 0 {
                let n = done.unopened;
                return Err(Error::Setup(format!(
                    "{n} sealed values cannot be decrypted with the master keys given; the log names them"
                )));
            }
        }
    }
    Ok(())
}

fn name_missing_key(e: Error, client_id: &str) -> Error {
    match e {
        Error::NotFound => Error::Setup(format!("there is no key '{client_id}'; `notihub key list` shows all")),
        e => e,
    }
}
