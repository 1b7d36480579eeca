//! Settings of e-mail.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How e-mail is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmailKind {
    /// Through an SMTP server.
    Smtp,
    /// Each mail is only logged.
    Mock,
    /// This installation sends no e-mail.
    Off,
}

/// How the connection to the SMTP server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SmtpTls {
    /// Starts unencrypted and is upgraded before any data is sent (usually port 587). The upgrade is required.
    Starttls,
    /// Encrypted from the first byte (usually port 465).
    Implicit,
    /// Not encrypted: only to this machine, unless --smtp-allow-plaintext is given.
    None,
}

/// Settings of e-mail.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "E-mail")]
pub struct Email {
    /// How e-mail is sent [default: smtp if --smtp-host is given; otherwise `up` starts a simulator and `work` uses
    /// mock].
    #[arg(long, env = "NOTIHUB_EMAIL", value_name = "KIND")]
    pub email: Option<EmailKind>,
    /// Host name of the SMTP server.
    #[arg(long, env = "NOTIHUB_SMTP_HOST", value_name = "HOST")]
    pub smtp_host: Option<String>,
    /// Port of the SMTP server [default: 587 with starttls, 465 with implicit, 25 with none].
    #[arg(long, env = "NOTIHUB_SMTP_PORT", value_name = "PORT")]
    pub smtp_port: Option<u16>,
    #[arg(long, env = "NOTIHUB_SMTP_TLS", default_value = "starttls", value_name = "TLS")]
    pub smtp_tls: SmtpTls,
    /// User name for the SMTP server. Without it the hub does not sign in.
    #[arg(long, env = "NOTIHUB_SMTP_USERNAME", value_name = "NAME")]
    pub smtp_username: Option<String>,
    /// Password for the SMTP server.
    #[arg(long, env = "NOTIHUB_SMTP_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub smtp_password: Option<String>,
    /// Sender of all e-mail: an address, or Name <address>.
    #[arg(
        long,
        env = "NOTIHUB_SMTP_FROM",
        default_value = "Notification Hub <notihub@localhost.localdomain>",
        value_name = "MAILBOX"
    )]
    pub smtp_from: String,
    /// Seconds to wait for the SMTP server's answer after a mail was transferred. Servers scan for viruses and spam
    /// before they answer; giving up earlier would send a second copy. RFC 5321 recommends ten minutes.
    #[arg(
        long,
        env = "NOTIHUB_SMTP_DATA_TIMEOUT_S",
        default_value_t = 600,
        value_name = "S",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub smtp_data_timeout_s: u64,
    /// Seconds without a call to an SMTP server that refuses us temporarily (4.7.x that is not about a single
    /// recipient).
    #[arg(long, env = "NOTIHUB_SMTP_THROTTLED_PAUSE_S", default_value_t = 300, value_name = "S")]
    pub smtp_throttled_pause_s: u64,
    /// Allow unencrypted mail, password included, to another machine.
    #[arg(long, env = "NOTIHUB_SMTP_ALLOW_PLAINTEXT")]
    pub smtp_allow_plaintext: bool,
    /// A PEM file with a further certificate authority to trust, for e-mail, Slack and webhooks.
    #[arg(long, env = "NOTIHUB_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}
