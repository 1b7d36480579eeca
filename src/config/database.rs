//! The database and the data kept in it.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Result};

/// Settings of the database.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Database")]
pub struct Database {
    /// An existing PostgreSQL 15 or newer, as postgres://user:password@host:port/database. Several servers are tried in
    /// order: host1:port1,host2:port2, with libpq's target_session_attrs and connect_timeout. Without this setting `up`
    /// starts a private server from the programs installed on this machine, and other commands use the server of a
    /// running `up`.
    #[arg(long, env = "NOTIHUB_DATABASE_URL", hide_env_values = true, value_name = "URL", value_parser = database_url)]
    pub database_url: Option<String>,
    /// The same database as its schema's owner or a superuser, for `migrate`, which creates the login of --database-url
    /// and grants it what the hub needs. All other processes then run as a login that owns nothing [default:
    /// --database-url].
    #[arg(
        long,
        env = "NOTIHUB_MIGRATE_DATABASE_URL",
        hide_env_values = true,
        value_name = "URL",
        value_parser = database_url
    )]
    pub migrate_database_url: Option<String>,
    /// Folder of the private PostgreSQL's data [default: /var/lib/notihub for root, otherwise ~/.local/share/notihub].
    #[arg(long, env = "NOTIHUB_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Database connections for reads of the API.
    #[arg(long, env = "NOTIHUB_API_CONNECTIONS", default_value_t = 8, value_name = "N")]
    pub api_connections: u32,
    /// Database connections for storing accepted messages: grouped requests, and batches.
    #[arg(long, env = "NOTIHUB_INTAKE_CONNECTIONS", default_value_t = 6, value_name = "N")]
    pub intake_connections: u32,
    /// Database connections of the workers. Calls to providers hold none, so few are enough.
    #[arg(long, env = "NOTIHUB_WORKER_CONNECTIONS", default_value_t = 6, value_name = "N")]
    pub worker_connections: u32,
    /// Database connections of the workers for webhooks, separate so that slow endpoints do not delay other channels.
    /// Opened when needed.
    #[arg(long, env = "NOTIHUB_WEBHOOK_CONNECTIONS", default_value_t = 4, value_name = "N")]
    pub webhook_connections: u32,
    /// Shards over which new partners are spread. A partner keeps its shard for good.
    #[arg(
        long,
        env = "NOTIHUB_SHARDS",
        default_value_t = 8,
        value_name = "N",
        value_parser = clap::value_parser!(i16).range(1..=1024)
    )]
    pub shards: i16,
    /// Days after which a message and everything that belongs to it is deleted.
    #[arg(
        long,
        env = "NOTIHUB_RETENTION_DAYS",
        default_value_t = 90,
        value_name = "DAYS",
        value_parser = clap::value_parser!(u16).range(62..)
    )]
    pub retention_days: u16,
    /// Days after which the audit log is deleted, in whole months. The database refuses to delete its last 90 days.
    #[arg(
        long,
        env = "NOTIHUB_AUDIT_RETENTION_DAYS",
        default_value_t = 730,
        value_name = "DAYS",
        value_parser = clap::value_parser!(u16).range(90..)
    )]
    pub audit_retention_days: u16,
    /// Key that encrypts secrets in the database: 32 bytes as base64 (`openssl rand -base64 32`). To replace it,
    /// separate several with commas: the first encrypts, all decrypt. Give OLD,NEW to every process, then NEW,OLD, then
    /// run `notihub key reseal`, then give NEW alone. `up` creates one in its data folder; without any, a key stored in
    /// the database is used, which does not protect a backup of that database.
    #[arg(
        long = "master-key",
        env = "NOTIHUB_MASTER_KEY",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "BASE64",
        value_parser = crate::crypt::read_key
    )]
    pub master_keys: Vec<[u8; crate::crypt::KEY_BYTES]>,
    /// Start even if secrets in the database cannot be decrypted because their master key is lost.
    #[arg(long, env = "NOTIHUB_ACCEPT_UNOPENED")]
    pub accept_unopened: bool,
    /// Start even if the server can lose confirmed transactions (fsync, full_page_writes or synchronous_commit off).
    #[arg(long, env = "NOTIHUB_ACCEPT_LOSS")]
    pub accept_loss: bool,
}

impl Database {
    /// The data folder of these settings; see `data_dir`.
    ///
    /// # Errors
    /// As `data_dir`.
    pub fn data_dir(&self) -> Result<PathBuf> {
        data_dir(self.data_dir.as_ref())
    }
}

/// The given data folder, or this machine's default: /var/lib/notihub for root, otherwise $XDG_DATA_HOME/notihub or
/// ~/.local/share/notihub.
///
/// # Errors
/// `Error::Usage` if there is no home folder.
pub fn data_dir(given: Option<&PathBuf>) -> Result<PathBuf> {
    if let Some(folder) = given {
        return Ok(folder.clone());
    }
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/notihub".into());
    }
    let home = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    home.map(|h| h.join("notihub"))
        .ok_or_else(|| Error::Usage("this user has no home folder for the data; give a folder with --data-dir".into()))
}

/// Checks only the scheme; the rest is parsed where it is used.
fn database_url(text: &str) -> Result<String, &'static str> {
    let is_ours = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
    is_ours.then(|| text.to_owned()).ok_or(
        "write it as postgres://user:password@host:port/database, with several servers as host1:port1,host2:port2",
    )
}
