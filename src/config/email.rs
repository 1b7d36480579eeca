//! E-mail.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EmailKind {
    /// A real server over SMTP.
    Smtp,
    /// Only logs each mail.
    Mock,
    /// No e-mail from this installation.
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SmtpTls {
    /// Plain at first, encrypted before anything is said (usually port 587). Required, not tried.
    Starttls,
    /// Encrypted from the first byte (usually port 465).
    Implicit,
    /// Not encrypted: only to this machine, unless --smtp-allow-plaintext.
    None,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "E-mail")]
pub struct Email {
    /// How e-mail leaves [default: smtp when --smtp-host is given; else `up` starts a simulator and `work` has the mock].
    #[arg(long, env = "NOTIHUB_EMAIL", value_name = "KIND")]
    pub email: Option<EmailKind>,
    #[arg(long, env = "NOTIHUB_SMTP_HOST", value_name = "HOST")]
    pub smtp_host: Option<String>,
    /// [default: 587 with starttls, 465 with implicit, 25 with none]
    #[arg(long, env = "NOTIHUB_SMTP_PORT", value_name = "PORT")]
    pub smtp_port: Option<u16>,
    #[arg(long, env = "NOTIHUB_SMTP_TLS", default_value = "starttls", value_name = "TLS")]
    pub smtp_tls: SmtpTls,
    #[arg(long, env = "NOTIHUB_SMTP_USERNAME", value_name = "NAME")]
    pub smtp_username: Option<String>,
    #[arg(long, env = "NOTIHUB_SMTP_PASSWORD", hide_env_values = true, value_name = "PASSWORD")]
    pub smtp_password: Option<String>,
    /// Sender of all e-mail, as address or as Name <address>.
    #[arg(
        long,
        env = "NOTIHUB_SMTP_FROM",
        default_value = "Notification Hub <notihub@localhost.localdomain>",
        value_name = "MAILBOX"
    )]
    pub smtp_from: String,
    /// Seconds to wait for a mail server's answer to a mail it has got as a whole: it may look for viruses and spam until
    /// then, and a second copy would be sent if it were not waited for. RFC 5321 asks for ten minutes.
    #[arg(long, env = "NOTIHUB_SMTP_DATA_TIMEOUT_S", default_value_t = 600, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub smtp_data_timeout_s: u64,
    /// Seconds to stay away from a mail server that refuses us for a while (4.7.x, and not because of one recipient).
    #[arg(long, env = "NOTIHUB_SMTP_THROTTLED_PAUSE_S", default_value_t = 300, value_name = "S")]
    pub smtp_throttled_pause_s: u64,
    /// Send unencrypted, password included, to another machine.
    #[arg(long, env = "NOTIHUB_SMTP_ALLOW_PLAINTEXT")]
    pub smtp_allow_plaintext: bool,
    /// A PEM file with a further certificate authority to trust, for e-mail, Slack and webhooks.
    #[arg(long, env = "NOTIHUB_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}
