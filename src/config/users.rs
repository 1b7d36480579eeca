//! Settings of users: a partner's own people.

use clap::Args;

/// Settings of users.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Users")]
pub struct Users {
    /// The partner of people who sign up or sign in without the header X-Partner, by name or id. Without this setting
    /// it is the only partner whose sign-up is on.
    #[arg(long, env = "NOTIHUB_SIGN_UP_PARTNER", value_name = "PARTNER")]
    pub sign_up_partner: Option<String>,
    /// The cost of bcrypt, by which passwords are hashed: each step doubles the time. 12 takes about a quarter of a
    /// second. A password is hashed anew at the next sign-in after a change.
    #[arg(
        long,
        env = "NOTIHUB_BCRYPT_COST",
        default_value_t = 12,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(10..=15)
    )]
    pub bcrypt_cost: u32,
}
