//! Settings of retries.

use std::time::Duration;

use clap::Args;

use crate::model::channel::{Channel, OnUnknown};
use crate::model::retry::{EMAIL_SCHEDULE, MAX_UNKNOWN_COPIES, RetryPolicy};

/// Settings of retries.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Retries")]
pub struct Retry {
    /// Attempts of a delivery, on channels without a schedule of their own.
    #[arg(
        long,
        env = "NOTIHUB_RETRY_MAX_ATTEMPTS",
        default_value_t = 3,
        value_name = "N",
        value_parser = clap::value_parser!(i16).range(1..=100)
    )]
    pub retry_max_attempts: i16,
    /// Longest pause in milliseconds before the second attempt. The real pause is a random part of it, so that
    /// deliveries that failed together do not come back together.
    #[arg(long, env = "NOTIHUB_RETRY_BACKOFF_DELAY", default_value_t = 1000, value_name = "MS")]
    pub retry_backoff_delay: u64,
    /// Factor by which each further pause is longer.
    #[arg(long, env = "NOTIHUB_RETRY_MULTIPLIER", default_value_t = 2.0, value_name = "X")]
    pub retry_multiplier: f64,
    /// Longest pause in seconds, even if a provider asks for a longer one.
    #[arg(long, env = "NOTIHUB_RETRY_CEILING_S", default_value_t = 3600, value_name = "S")]
    pub retry_ceiling_s: u64,
    /// The pauses between a channel's attempts, in order: "EMAIL=5s 1m 30m 2h". The channel then has one attempt more
    /// than pauses; "EMAIL=backoff" uses the settings above instead. Separate several channels with commas. E-mail has
    /// a schedule of four days by default, other channels have none; a delivery with a fallback uses no schedule.
    /// Webhooks keep theirs.
    #[arg(
        long = "retry-schedule",
        env = "NOTIHUB_RETRY_SCHEDULE",
        value_delimiter = ',',
        value_name = "CHANNEL=PAUSES",
        value_parser = retry_schedule
    )]
    pub retry_schedules: Vec<(Channel, Pauses)>,
    /// After an attempt whose outcome is unknown: CHANNEL=retry or CHANNEL=hold. Separate several with commas. Paid
    /// channels hold by default, the others retry.
    #[arg(
        long,
        env = "NOTIHUB_ON_UNKNOWN",
        value_delimiter = ',',
        value_name = "CHANNEL=WHAT",
        value_parser = on_unknown
    )]
    pub on_unknown: Vec<(Channel, OnUnknown)>,
}

/// The pauses between a channel's attempts; empty: those of the general settings.
pub type Pauses = Vec<Duration>;

impl Retry {
    /// The retry policy of a channel's deliveries. `stands_by`: the delivery has a fallback, which is sent when the
    /// attempts are used up and must not wait for days.
    pub fn policy(&self, channel: Channel, stands_by: bool) -> RetryPolicy<'_> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        if channel == Channel::Webhook {
            return RetryPolicy::webhook();
        }
        let patience = match channel {
            Channel::Email => 4 * DAY,
            Channel::Slack => 3 * DAY,
            _ => DAY,
        };
        let general = RetryPolicy {
            max_attempts: self.retry_max_attempts,
            base_backoff: Duration::from_millis(self.retry_backoff_delay),
            multiplier: self.retry_multiplier,
            max_pause: Duration::from_secs(self.retry_ceiling_s),
            throttle_patience: patience,
            ..RetryPolicy::default()
        };
        let set = self.retry_schedules.iter().rev().find(|(c, _)| *c == channel).map(|(_, pauses)| pauses.as_slice());
        let own: &[Duration] = if channel == Channel::Email { &EMAIL_SCHEDULE } else { &[] };
        match set.unwrap_or(own) {
            schedule if stands_by || schedule.is_empty() => general,
            schedule => RetryPolicy { max_copies: MAX_UNKNOWN_COPIES, ..general.with_schedule(schedule) },
        }
    }

    /// What the settings say about unknown outcomes on this channel; `None`: nothing.
    pub fn on_unknown(&self, channel: Channel) -> Option<OnUnknown> {
        self.on_unknown.iter().rev().find(|(c, _)| *c == channel).map(|(_, what)| *what)
    }
}

fn retry_schedule(text: &str) -> Result<(Channel, Pauses), String> {
    let form = "write CHANNEL=PAUSES, as in \"EMAIL=5s 1m 30m 2h\", or CHANNEL=backoff";
    let (channel, pauses) = text.split_once('=').ok_or(form)?;
    let channel: Channel = channel.trim().parse()?;
    if channel == Channel::Webhook {
        return Err(
            "the schedule of webhooks cannot be changed, because partners rely on the documented one".to_owned()
        );
    }
    if pauses.trim() == "backoff" {
        return Ok((channel, Vec::new()));
    }
    let pauses: Vec<Duration> = pauses.split_whitespace().map(pause).collect::<Result<_, _>>()?;
    if pauses.is_empty() || pauses.len() > 99 { Err(form.to_owned()) } else { Ok((channel, pauses)) }
}

/// Parses "90s", "5m", "2h" or "1d", from one second to a week.
fn pause(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a pause; write a number with s, m, h or d, from 1s to 7d");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(seconds).filter(|s| (1..=7 * 86_400).contains(s)).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

fn on_unknown(text: &str) -> Result<(Channel, OnUnknown), String> {
    let (channel, what) = text.split_once('=').ok_or("write CHANNEL=retry or CHANNEL=hold")?;
    Ok((channel.parse()?, what.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault E3: the pauses belong to the channel, and an operator may set them.
    #[test]
    fn channel_schedule_is_parsed_and_used() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            retry: Retry,
        }
        let of = |args: &[&str], channel, stands_by| {
            let flags = Flags::try_parse_from(std::iter::once("test").chain(args.iter().copied())).expect("flags");
            let policy = flags.retry.policy(channel, stands_by);
            (policy.max_attempts, policy.schedule.map(|s| s.iter().map(Duration::as_secs).collect::<Vec<_>>()))
        };
        assert_eq!(of(&[], Channel::Email, false).0, 13);
        assert_eq!(of(&[], Channel::Email, true), (3, None), "another channel stands by");
        assert_eq!(of(&[], Channel::Sms, false), (3, None));
        let set = ["--retry-schedule=SLACK=5s 1m,EMAIL=backoff", "--retry-max-attempts=4"];
        assert_eq!(of(&set, Channel::Slack, false), (3, Some(vec![5, 60])));
        assert_eq!(of(&set, Channel::Email, false), (4, None));
        for wrong in ["EMAIL", "EMAIL=", "EMAIL=5", "EMAIL=0s", "EMAIL=8d", "EMAIL=5s x", "FAX=5s", "WEBHOOK=5s"] {
            assert!(retry_schedule(wrong).is_err(), "{wrong}");
        }
    }
}
