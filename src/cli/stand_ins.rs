//! Simulators for the providers that are not configured, for `up`.

use super::simulate;
use crate::clock::Clock;
use crate::config::{EmailKind, ProviderSettings, Settings, SmtpTls};
use crate::error::Result;
use crate::model::channel::{Channel, TEXT_CHANNELS};
use crate::provider::http::ClientSettings;
use crate::provider::registry;
use crate::provider::simulator::vendor::{SimulatorSetup, VendorSimulator};
use crate::provider::simulator::{kakaotalk, slack::SlackSimulator, sms, smtp::SmtpSimulator, solapi, talktalk};
use crate::shutdown::Shutdown;

/// The simulators that run in place of providers that are not configured.
#[derive(Default)]
pub struct Simulators {
    pub slack: Option<SlackSimulator>,
    pub smtp: Option<SmtpSimulator>,
    /// Each vendor's simulator with the name of the account at it, and the account's channels.
    pub vendors: Vec<(VendorSimulator, String, Vec<Channel>)>,
}

/// Starts a simulator for each provider that is not configured, and changes `settings` to use it. `dependencies`:
/// stopped after the hub.
///
/// # Errors
/// `Error::Setup` if a simulator cannot listen.
pub async fn start(settings: &mut Settings, dependencies: &Shutdown) -> Result<Simulators> {
    let mut simulators = Simulators::default();
    if settings.email.email.is_none() && settings.email.smtp_host.is_none() {
        let smtp = SmtpSimulator::start(0, 0, dependencies).await?;
        settings.email.email = Some(EmailKind::Smtp);
        settings.email.smtp_host = Some(smtp.address().ip().to_string());
        settings.email.smtp_port = Some(smtp.address().port());
        settings.email.smtp_tls = SmtpTls::None;
        settings.email.smtp_throttled_pause_s = 1;
        simulators.smtp = Some(smtp);
    }
    if settings.slack.slack_destinations.is_empty() {
        let slack = SlackSimulator::start(0, dependencies).await?;
        settings.slack.slack_destinations.push(("ops".into(), slack.webhook_url("ops")));
        simulators.slack = Some(slack);
    }
    simulators.vendors = start_vendors(settings, dependencies).await?;
    Ok(simulators)
}

/// The speed of the clock for delayed receipts: ten minutes pass in ten seconds.
const RATE: f64 = 60.0;

/// Starts simulators of vendors for the channels that have neither an account nor a mock, and adds accounts for them.
async fn start_vendors(
    settings: &mut Settings,
    dependencies: &Shutdown,
) -> Result<Vec<(VendorSimulator, String, Vec<Channel>)>> {
    let common = ClientSettings::from_settings(settings, &Clock::system());
    let mut missing = TEXT_CHANNELS.to_vec();
    missing.retain(|channel| !settings.channels.mock.contains(channel));
    for account in &settings.channels.providers {
        let account = registry::build_account(account, &common)?;
        missing.retain(|channel| account.capability(*channel).is_none());
    }
    let setup = || SimulatorSetup { rate: RATE, ..SimulatorSetup::default() };
    let mut vendors = Vec::new();
    let mut add = |vendor: VendorSimulator, mut account: ProviderSettings, channels: &[Channel]| {
        // The suffix keeps the name apart from the operator's accounts.
        account.name += "-simulator";
        vendors.push((vendor, account.name.clone(), channels.to_vec()));
        settings.channels.providers.push(account);
    };
    if missing.contains(&Channel::KakaoAlimtalk) {
        let vendor = kakaotalk::start(setup(), dependencies).await?;
        add(vendor.clone(), simulate::kakaotalk_account(&vendor), &[Channel::KakaoAlimtalk]);
    }
    if missing.contains(&Channel::Sms) {
        let vendor = sms::start(setup(), dependencies).await?;
        add(vendor.clone(), simulate::sms_account(&vendor), &[Channel::Sms]);
    }
    if missing.contains(&Channel::NaverTalk) {
        let vendor = talktalk::start(setup(), dependencies).await?;
        add(vendor.clone(), simulate::talktalk_account(&vendor), &[Channel::NaverTalk]);
    }
    let others = [Channel::KakaoAlimtalk, Channel::Sms, Channel::NaverTalk];
    missing.retain(|channel| !others.contains(channel));
    if !missing.is_empty() {
        let vendor = solapi::start(setup(), dependencies).await?;
        let words: Vec<&str> = missing.iter().map(|channel| channel.as_str()).collect();
        add(vendor.clone(), simulate::solapi_account(&vendor, &words.join("+")), &missing);
    }
    Ok(vendors)
}
