//! `notihub migrate`.

use chrono::TimeDelta;
use clap::Args;

use super::{Output, print, process};
use crate::clock::Clock;
use crate::config::{Database, Log};
use crate::error::{Error, Result};
use crate::store::role::GrantRepair;
use crate::store::{partition, role, sql_intake};
use crate::telemetry;

#[derive(Debug, Args)]
pub struct Migrate {
    // Before the settings, whose last heading would otherwise apply to it.
    /// Only report missing migrations and rights; exit code 1 if any is missing.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    log: Log,
}

/// `notihub migrate`: applies missing migrations, makes partitions and repairs rights; with `--check` it only reports
/// them. Returns the exit code.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Setup` if the login of `--database-url` cannot use
/// the migrated schema.
pub async fn run(args: Migrate, output: Output) -> Result<u8> {
    telemetry::start_logs(&args.log)?;
    let (owner_url, app_url) = (process::owner_url(&args.database)?, process::database_url(&args.database)?);
    let store = match args.check {
        true => process::reading_store(&args.database, &owner_url).await?,
        false => process::proven_store(&args.database, &owner_url).await?,
    };
    let missing = store.migrations_missing().await?;
    if args.check {
        let rights = if missing == 0 { role::missing_grants(store.api()).await? } else { Vec::new() };
        match output {
            Output::Json => print::json(&serde_json::json!({"missing": missing, "applied": 0, "partitionsMade": 0,
                "rightsMissing": rights})),
            Output::Text if missing == 0 && rights.is_empty() => anstream::println!("the schema is up to date"),
            Output::Text => anstream::println!(
                "{missing} migrations and {} rights are missing: run `notihub migrate`",
                rights.len()
            ),
        }
        return Ok(u8::from(missing > 0 || !rights.is_empty()));
    }
    let repaired = process::migrate(&args.database, &owner_url, &app_url).await?;
    let now = Clock::system().now();
    let oldest = now - TimeDelta::days(i64::from(args.database.retention_days));
    let made = partition::maintain(&store, now, oldest).await?.made.len();
    let carried: Vec<_> =
        sql_intake::grants(store.api(), None).await?.into_iter().filter(|grant| grant.carried_over).collect();
    let hub = process::open_store(&args.database, &app_url)?;
    let standing = role::check(hub.api()).await.map_err(|e| {
        Error::Setup(format!(
            "the schema is migrated, but the login of --database-url cannot use it: {e}. Set its password with: alter \
                role \
             … password '…'"
        ))
    });
    match output {
        Output::Json => print::json(&serde_json::json!({
            "missing": missing, "applied": missing, "partitionsMade": made, "repaired": repaired.done,
            "toRun": repaired.to_run,
            "carriedOver": carried.iter().map(|g| serde_json::json!({"role": g.role_name, "partner": g.partner}))
                .collect::<Vec<_>>(),
        })),
        Output::Text => {
            match missing {
                0 => anstream::println!("the schema is up to date"),
                _ => anstream::println!("{missing} migrations applied, {made} partitions made"),
            }
            tell_roles(&repaired);
            tell_carried(&carried);
        }
    }
    if let (Some(fault), Output::Text) = (standing?.fault(), output) {
        anstream::println!("{} {fault}. {}", print::paint(print::WARN, "warn"), SEPARATE);
    }
    Ok(0)
}

/// The remedy for a hub that runs as the owner of its schema.
pub const SEPARATE: &str = "To run the hub as a role that owns nothing, give `notihub migrate` the present login as \
--migrate-database-url and a new one as --database-url (postgres://notihub_app:PASSWORD@…), which it creates; then \
give \
that --database-url to every process";

fn tell_roles(repaired: &GrantRepair) {
    let (grants, roles): (Vec<&String>, Vec<&String>) =
        repaired.done.iter().partition(|done| done.starts_with("grant ") || done.starts_with("revoke "));
    for role in roles {
        anstream::println!("{role}");
    }
    if !grants.is_empty() {
        anstream::println!("{} rights repaired", grants.len());
    }
    if !repaired.to_run.is_empty() {
        let what = print::paint(print::WARN, "to run");
        anstream::println!("{what} by an administrator of the server, then `notihub migrate` again:");
        repaired.to_run.iter().for_each(|statement| anstream::println!("  {statement};"));
    }
}

fn tell_carried(carried: &[sql_intake::EnqueueGrant]) {
    let mut roles: Vec<&str> = carried.iter().map(|grant| grant.role_name.as_str()).collect();
    roles.dedup();
    for name in roles {
        let partners: Vec<String> =
            carried.iter().filter(|g| g.role_name == name).map(|g| print::printable(&g.partner)).collect();
        anstream::println!(
            "{} the login {} may enqueue for {} as it did before logins were tied to partners. Confirm those it needs \
                with \
             `notihub partner grant PARTNER --role {}`, then end the others with `notihub partner revoke \
             --carried-over \
             --role {3}`",
            print::paint(print::WARN, "warn"),
            print::printable(name),
            partners.join(", "),
            print::printable(name),
        );
    }
}
