//! `notihub simulate`: runs the simulators of providers alone, for development.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{Output, print};
use crate::config::ProviderSettings;
use crate::error::Result;
use crate::provider::simulator::vendor::{SimulatorSetup, VendorSimulator};
use crate::provider::simulator::{gateway, kakaotalk, magic, nhn, slack::SlackSimulator, smtp::SmtpSimulator};
use crate::provider::simulator::{sms, solapi, talktalk};
use crate::shutdown::{Shutdown, signalled};

/// The sender number that the simulators know.
const SENDER: &str = "0212345678";
/// The key in the URL that the Solapi simulator calls back.
pub const RECEIPT_KEY: &str = "simulator-receipts-key";

fn help() -> String {
    format!(
        "Received:          curl -s http://127.0.0.1:8025/_records\nNext answers:      curl -s \
            http://127.0.0.1:8025/_script \
         -d '{{\"do\": \"fail\", \"status\": 451, \"text\": \"4.3.0 later\", \"times\": 2}}'\n\"do\" is one of ok, \
         fail, hang, \
         limit, cut, cut_before, garbage. E-mails to bounce@, greylist@, full@ and cut@ behave like their names.\n\n\
         Receipts:          curl -s http://127.0.0.1:8084/_receipts -X POST            (sends all pending receipts \
         now)\n\
         A faster clock:    curl -s http://127.0.0.1:8084/_clock -d '{{\"rate\": 60}}'    (a second counts as a \
         minute)\n\
         Callback URL:      curl -s http://127.0.0.1:8084/_settings -d '{{\"callback\": \"http://…\"}}'\n\
         Also /_settings:   \"senders\": [\"{SENDER}\"], \"balance\": 3, \"limit\": {{\"requests\": 100, \"seconds\": \
         60}}\n\n\
         Magic recipients, +82 10-0000-00NN or as user key the word:\n{}",
        magic::help_table()
    )
}

#[derive(Debug, Args)]
#[command(after_help = help())]
pub struct Simulate {
    /// Port of the KakaoTalk service of seed 001. Every port may be 0, which takes any free port.
    #[arg(long, default_value_t = kakaotalk::PORT, value_name = "PORT")]
    kakaotalk_port: u16,
    /// Port of the SMS service of seed 001.
    #[arg(long, default_value_t = sms::PORT, value_name = "PORT")]
    sms_port: u16,
    /// Port of Slack's incoming webhooks; /_records there lists the received posts.
    #[arg(long, default_value_t = 8083, value_name = "PORT")]
    slack_port: u16,
    /// Port of Solapi v4.
    #[arg(long, default_value_t = 8084, value_name = "PORT")]
    solapi_port: u16,
    /// Port of NHN Cloud: SMS, AlimTalk and RCS.
    #[arg(long, default_value_t = 8085, value_name = "PORT")]
    nhn_port: u16,
    /// Port of Naver TalkTalk.
    #[arg(long, default_value_t = 8086, value_name = "PORT")]
    talktalk_port: u16,
    /// Port of a generic gateway.
    #[arg(long, default_value_t = 8087, value_name = "PORT")]
    gateway_port: u16,
    /// Port of the SMTP server.
    #[arg(long, default_value_t = 2525, value_name = "PORT")]
    smtp_port: u16,
    /// Port where /_records lists the received e-mails.
    #[arg(long, default_value_t = 8025, value_name = "PORT")]
    smtp_control_port: u16,
    /// The URL of the hub that gets the receipts.
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    hub: String,
    /// The speed of the clock for delayed receipts: at 60, a minute passes in a second.
    #[arg(long, default_value_t = 1.0, value_name = "RATE", value_parser = parse_rate)]
    rate: f64,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "write a number".to_owned())?;
    if (0.0..=1e9).contains(&rate) {
        Ok(rate)
    } else {
        Err("give a rate from 0, which stops the clock, to 10^9".into())
    }
}

/// The settings of a hub's account at a simulator.
pub fn account(name: &str, adapter: &str, options: &[(&str, &str)]) -> ProviderSettings {
    let options = options.iter().map(|(option, value)| ((*option).to_owned(), (*value).to_owned()));
    ProviderSettings {
        name: name.to_owned(),
        adapter: adapter.to_owned(),
        options: options.collect::<BTreeMap<_, _>>(),
    }
}

/// The account at the KakaoTalk simulator.
pub fn kakaotalk_account(vendor: &VendorSimulator) -> ProviderSettings {
    account("kakaotalk", "kakaotalk", &[("base-url", &vendor.url())])
}

/// The account at the SMS simulator.
pub fn sms_account(vendor: &VendorSimulator) -> ProviderSettings {
    account("sms", "sms", &[("base-url", &vendor.url())])
}

/// The account at the Naver TalkTalk simulator.
pub fn talktalk_account(vendor: &VendorSimulator) -> ProviderSettings {
    account("talktalk", "talktalk", &[("base-url", &vendor.url()), ("token", talktalk::AUTHORIZATION)])
}

/// The account at the Solapi simulator. `channels`: the channels to use, joined with `+`.
pub fn solapi_account(vendor: &VendorSimulator, channels: &str) -> ProviderSettings {
    let options = [
        ("base-url", vendor.url()),
        ("api-key", solapi::API_KEY.to_owned()),
        ("api-secret", solapi::API_SECRET.to_owned()),
        ("from", SENDER.to_owned()),
        ("pf-id", solapi::PF_ID.to_owned()),
        ("rcs-brand-id", solapi::RCS_BRAND_ID.to_owned()),
        ("receipt-key", RECEIPT_KEY.to_owned()),
        ("channels", channels.to_owned()),
    ];
    account("solapi", "solapi", &options.each_ref().map(|(option, value)| (*option, value.as_str())))
}

fn gateway_account(vendor: &VendorSimulator) -> ProviderSettings {
    let url = format!("{}{}", vendor.url(), gateway::PATH);
    let options = [("url", url.as_str()), ("secret", gateway::SECRET), ("channels", "SMS"), ("receipt-hours", "26")];
    account("gateway", "gateway", &options)
}

/// The URL where `hub` takes the receipts of `account`.
pub fn receipt_url(hub: &str, account: &str) -> String {
    let key = if account.starts_with("solapi") { format!("?key={RECEIPT_KEY}") } else { String::new() };
    format!("{}/v1/receipts/{account}{key}", hub.trim_end_matches('/'))
}

/// An account as lines of notihub.toml.
fn toml(settings: &ProviderSettings) -> String {
    let lines: String = settings.options.iter().map(|(option, value)| format!("{option} = \"{value}\"\n")).collect();
    format!("[provider.{}]\nadapter = \"{}\"\n{lines}", settings.name, settings.adapter)
}

/// `notihub simulate`: starts all simulators, prints their addresses and settings for a hub, and runs until a signal.
/// Returns the exit code.
///
/// # Errors
/// `Error::Setup` if a port is taken.
pub async fn run(args: Simulate, output: Output) -> Result<u8> {
    let shutdown = Shutdown::new();
    let slack = SlackSimulator::start(args.slack_port, &shutdown).await?;
    let smtp = SmtpSimulator::start(args.smtp_port, args.smtp_control_port, &shutdown).await?;
    let vendors = start_vendors(&args, &shutdown).await?;
    match output {
        Output::Json => print::json(&to_json(&slack, &smtp, &vendors)),
        Output::Text => print_simulators(&slack, &smtp, &vendors),
    }
    signalled().await;
    shutdown.stop();
    Ok(u8::from(!shutdown.drained(std::time::Duration::from_secs(5)).await))
}

/// Starts the vendors' simulators. Returns each with the accounts that a hub can have there.
async fn start_vendors(args: &Simulate, shutdown: &Shutdown) -> Result<Vec<(VendorSimulator, Vec<ProviderSettings>)>> {
    let setup = |port: u16| SimulatorSetup { port, rate: args.rate, ..SimulatorSetup::default() };
    let kakaotalk = kakaotalk::start(setup(args.kakaotalk_port), shutdown).await?;
    let sms = sms::start(setup(args.sms_port), shutdown).await?;
    let solapi = solapi::start(setup(args.solapi_port), shutdown).await?;
    let nhn = nhn::start(setup(args.nhn_port), shutdown).await?;
    let talktalk = talktalk::start(setup(args.talktalk_port), shutdown).await?;
    let gateway = gateway::start(setup(args.gateway_port), shutdown).await?;
    solapi.set_callback("", &receipt_url(&args.hub, "solapi"))?;
    gateway.set_callback("", &receipt_url(&args.hub, "gateway"))?;
    nhn.set_callback("sms", &receipt_url(&args.hub, "nhn-sms"))?;
    nhn.set_callback("alimtalk", &receipt_url(&args.hub, "nhn-alimtalk"))?;
    let accounts = [
        vec![kakaotalk_account(&kakaotalk)],
        vec![sms_account(&sms)],
        vec![solapi_account(&solapi, "LMS+MMS+KAKAO_BRAND_MESSAGE+RCS")],
        nhn_accounts(&nhn),
        vec![talktalk_account(&talktalk)],
        vec![gateway_account(&gateway)],
    ];
    Ok([kakaotalk, sms, solapi, nhn, talktalk, gateway].into_iter().zip(accounts).collect())
}

fn nhn_accounts(vendor: &VendorSimulator) -> Vec<ProviderSettings> {
    let url = vendor.url();
    let keys = [("base-url", url.as_str()), ("app-key", nhn::APP_KEY), ("secret-key", nhn::SECRET_KEY)];
    let with = |name: &str, more: &[(&str, &str)]| account(name, name, &[&keys, more].concat());
    let signature = ("webhook-signature", nhn::SIGNATURE);
    vec![
        with("nhn-sms", &[("from", SENDER), signature]),
        with("nhn-alimtalk", &[("sender-key", nhn::SENDER_KEY), signature]),
        with("nhn-rcs", &[("brand-id", nhn::BRAND_ID), ("chatbot-id", SENDER)]),
    ]
}

fn to_json(
    slack: &SlackSimulator,
    smtp: &SmtpSimulator,
    vendors: &[(VendorSimulator, Vec<ProviderSettings>)],
) -> Value {
    let mut value = Map::new();
    for (vendor, accounts) in vendors {
        let of = |account: &ProviderSettings| {
            (account.name.clone(), json!({ "adapter": account.adapter, "options": account.options }))
        };
        let accounts: Map<String, Value> = accounts.iter().map(of).collect();
        let records = format!("{}/_records", vendor.url());
        value.insert(
            vendor.name().to_owned(),
            json!({ "url": vendor.url(), "records": records, "providers": accounts }),
        );
    }
    value.insert("slackHook".to_owned(), json!(slack.webhook_url("ops")));
    value.insert("slackRecords".to_owned(), json!(format!("http://{}/_records", slack.address())));
    value.insert("smtp".to_owned(), json!(smtp.address().to_string()));
    value.insert("smtpRecords".to_owned(), json!(format!("http://{}/_records", smtp.control_address())));
    Value::Object(value)
}

fn print_simulators(
    slack: &SlackSimulator,
    smtp: &SmtpSimulator,
    vendors: &[(VendorSimulator, Vec<ProviderSettings>)],
) {
    let line = |name: &str, url: &str, records: &str| {
        anstream::println!("{name:<10} {url}\n           received: {records}/_records")
    };
    line("slack", &slack.webhook_url("ops"), &format!("http://{}", slack.address()));
    line("smtp", &smtp.address().to_string(), &format!("http://{}", smtp.control_address()));
    for (vendor, _) in vendors {
        line(vendor.name(), &vendor.url(), &vendor.url());
    }
    anstream::println!(
        "\nFor a hub, as notihub.toml:\n\nslack-destination = [\"ops={}\"]\nsmtp-host = \"{}\"\nsmtp-port = \
            {}\nsmtp-tls = \"none\"\n",
        slack.webhook_url("ops"),
        smtp.address().ip(),
        smtp.address().port(),
    );
    for account in vendors.iter().flat_map(|(_, accounts)| accounts) {
        let lines = toml(account);
        // Other accounts already serve these channels, and two accounts of a channel would share its deliveries.
        let spare = account.name.starts_with("nhn-") || account.name == "gateway";
        let shown = if spare { lines.lines().map(|line| format!("# {line}\n")).collect() } else { lines };
        anstream::println!("{shown}");
    }
}
