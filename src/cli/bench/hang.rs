//! Scenario: the waits of one channel's deliveries while another channel's only provider never answers.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::super::process;
use super::load::{self, Load};
use super::report::Goal;
use super::run::{Run, load_of};
use super::testbed::Testbed;
use crate::clock::Clock;
use crate::config::ProviderSettings;
use crate::error::Result;
use crate::flow::intake::accept::accept_all;
use crate::model::channel::Channel;
use crate::model::lane::Priority;
use crate::model::message::{Content, Detail, NewDelivery, NewMessage};
use crate::provider::simulator::vendor::SimulatorSetup;
use crate::provider::simulator::{Behaviour, sms};
use crate::shutdown::Shutdown;
use crate::worker::{self, Role};

/// The number of rounds with and without the hanging provider, in turns, so that other load on the machine affects
/// both.
const ROUNDS: usize = 3;
/// The number of text messages for the hanging provider.
const WAITING: usize = 3_000;

/// Measures the waits of e-mails with and without a hanging provider of another channel.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn hang(run: &mut Run<'_>) -> Result<()> {
    run.name = "hang";
    let mut alone = round(run, false).await?;
    let mut beside = round(run, true).await?;
    for _ in 1..ROUNDS {
        alone += round(run, false).await?;
        beside += round(run, true).await?;
    }
    let ms = |waits: &Histogram<u64>, q| waits.value_at_quantile(q) as f64 / 1000.0;
    run.figure("alone, accepted → called p50", ms(&alone, 0.5), "ms");
    run.figure("beside it, accepted → called p50", ms(&beside, 0.5), "ms");
    run.figure("alone, accepted → called p99", ms(&alone, 0.99), "ms");
    run.figure("beside it, accepted → called p99", ms(&beside, 0.99), "ms");
    run.goal("p99 beside it, of alone", ms(&beside, 0.99) / ms(&alone, 0.99), "×", Goal::AtMost(1.1));
    Ok(())
}

/// Measures the waits of e-mails at 100 a second. `beside`: with text messages for a provider that hangs.
async fn round(run: &mut Run<'_>, beside: bool) -> Result<Histogram<u64>> {
    run.say(&format!(
        "100 e-mails a second for {} s{}",
        run.sizes.seconds,
        if beside { ", beside" } else { ", alone" }
    ));
    let vendor = Shutdown::new();
    let texts = sms::start(SimulatorSetup::default(), &vendor).await?;
    texts.script(Behaviour::Hang, u32::MAX);
    let mut settings = run.settings.clone();
    let options = BTreeMap::from([("base-url".to_owned(), texts.url())]);
    let account = ProviderSettings { name: "hanging".into(), adapter: "sms".into(), options };
    settings.channels.providers = vec![account];
    let providers = process::providers(&settings, &Clock::system(), &Shutdown::new())?;
    let further = providers.for_channel(Channel::Sms).iter().map(|a| a.provider.clone()).collect();
    let bed = Testbed::start_with(&settings, run.ground, further).await?;
    worker::start(&bed.hub, Role::Both);
    if beside {
        let message = |_| NewMessage {
            client_msg_id: None,
            kind: "TEXT".into(),
            priority: Priority::Normal,
            detail: Detail {
                contents: vec![Content { body: "text".into(), ..Content::default() }],
                ..Detail::default()
            },
            deliveries: vec![NewDelivery::new(Channel::Sms, "+821012345678".into())],
            scheduled_at: None,
            expires_at: None,
        };
        accept_all(&bed.hub, &bed.partner, (0..WAITING).map(|n| message(n).into()).collect()).await?;
    }
    load::spawn(&Load { rate: 100, ..load_of(&bed, 4, 2) }).await?;
    bed.take_waits();
    load::spawn(&Load { rate: 100, ..load_of(&bed, 4, run.sizes.seconds) }).await?;
    let waits = bed.take_waits();
    if beside {
        run.figure("texts the provider accepted and never answered", texts.accepted_count() as f64, "");
    }
    // Close the hanging connections; otherwise the hub would wait for them at its stop.
    vendor.stop();
    run.clear(bed).await?;
    Ok(waits)
}
