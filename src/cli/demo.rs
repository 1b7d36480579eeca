//! The three example messages of `up --demo`, posted over HTTP: order completed, payment failed, outage.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Client, SavedKeys, Target};
use super::stand_ins::Simulators;
use super::{Output, print};
use crate::error::Result;
use crate::flow::partner::Credentials;
use crate::hub::Hub;

fn scenarios(run: &str) -> [(&'static str, Value); 3] {
    [
        (
            "An order was completed: the customer gets an e-mail",
            json!({
                "type": "ORDER_COMPLETED", "clientMsgId": format!("demo-{run}-order"),
                "title": "Order 2026-1234 completed", "message": "Thank you! Your order 2026-1234 is on its way.",
                "recipient": "kim@example.com", "channels": ["EMAIL"],
            }),
        ),
        (
            "A payment failed: the customer gets an e-mail, operations a Slack post",
            json!({
                "type": "PAYMENT_FAILED", "clientMsgId": format!("demo-{run}-payment"),
                "title": "Payment of order 2026-1235 failed",
                "message": "The card was declined. Please choose another way to pay.",
                "recipient": "lee@example.com", "channels": ["EMAIL", "SLACK"],
            }),
        ),
        (
            "A system is down: operations gets a Slack post",
            json!({
                "type": "SYSTEM_OUTAGE", "clientMsgId": format!("demo-{run}-outage"), "priority": "URGENT",
                "title": "checkout is down", "message": "3 of 3 probes failed since 09:41.", "channels": ["SLACK"],
            }),
        ),
    ]
}

/// Posts the three messages one after the other, prints what happened to each, and returns whether all were sent.
///
/// # Errors
/// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers.
pub async fn run(
    hub: &Hub,
    url: &str,
    credentials: &Credentials,
    simulators: &Simulators,
    output: Output,
    began: Instant,
) -> Result<bool> {
    let client = Client::new(&Target::of(url.to_owned(), credentials))?;
    let (mut good, mut scenarios_run) = (true, Vec::new());
    for (n, (title, body)) in scenarios(&hub.next_id().to_string()).into_iter().enumerate() {
        let accepted = post_with_retries(&client, &body).await?;
        let id = accepted["id"].as_str().unwrap_or_default().to_owned();
        let (message, settled) = client.wait_until_settled(&id, Duration::from_secs(30)).await?;
        let timeline = client.get(&format!("/v1/messages/{id}/timeline")).await?;
        good &= settled && message["status"] == "COMPLETED";
        let first_after = began.elapsed().as_secs_f64();
        match output {
            Output::Text => {
                anstream::println!("\n{}", print::paint(print::BOLD, title));
                print::message_with_timeline(&message, &timeline);
                if n == 0 {
                    anstream::println!("    first message sent {first_after:.1} s after the start");
                }
            }
            Output::Json => {
                let timeline = &timeline["items"];
                scenarios_run.push(
                    json!({"scenario": title, "message": message, "timeline": timeline, "afterSeconds": first_after}),
                );
            }
        }
    }
    let mails = simulators.smtp.as_ref().map(|s| s.records().len());
    let posts = simulators.slack.as_ref().map(|s| s.records().len());
    match output {
        Output::Text => {
            let count = |n: Option<usize>| n.map_or("not simulated".to_owned(), |n| n.to_string());
            anstream::println!("\nThe simulators received {} e-mails and {} Slack posts.", count(mails), count(posts));
        }
        Output::Json => {
            print::json(&json!({"scenarios": scenarios_run, "good": good, "mails": mails, "slackPosts": posts}))
        }
    }
    Ok(good)
}

/// Posts a notification, and repeats it on errors with the same clientMsgId, so that it is stored once.
async fn post_with_retries(client: &Client, body: &Value) -> Result<Value> {
    let mut tries = 0;
    loop {
        match client.post("/notifications", body).await {
            Err(_) if tries < 10 => tries += 1,
            answered => return answered,
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Prints the links of a page where two users write to each other, and of one with two inboxes. The partner's token
/// behind the # lets both pages act for users.
///
/// # Errors
/// As [`run`].
pub async fn print_page_links(url: &str, credentials: &Credentials) -> Result<()> {
    let token = Client::new(&Target::of(url.to_owned(), credentials))?.token().await?;
    anstream::println!(
        "\nIn a browser, let two users write to each other:\n\n  {url}/chat/demo#token={token}\n\n\
         Watch two inboxes, and send to them:\n\n  {url}/inbox/demo#token={token}"
    );
    Ok(())
}

/// Prints commands to paste for the next steps.
pub fn print_next_steps(url: &str, folder: &std::path::Path, kept: &SavedKeys, webhook_allow_http: bool) {
    let folder = folder.display();
    // Without this setting the hub does not call endpoints on this machine.
    let listen = if webhook_allow_http {
        format!("\n\nReceive events by webhook: notihub webhook listen --create --url {url} --data-dir {folder}")
    } else {
        String::new()
    };
    let sign_in = |name: &str, of: &Credentials| {
        format!(
            "  {name}=$(curl -s {url}/v1/auth/token -H 'content-type: application/json' -d '{{\"clientId\": \"{}\",\n \
                   \
             \"clientSecret\": \"{}\"}}' | grep -o '\"accessToken\":\"[^\"]*' | cut -d'\"' -f4)",
            of.client_id, of.client_secret
        )
    };
    anstream::println!(
        "\nSend a message yourself, as the partner \"demo\":\n\n{}\n  curl -s {url}/notifications -H \"authorization: \
            Bearer $TOKEN\" \
         -H 'content-type: application/json' -d '{{\"type\": \"HELLO\",\n    \"title\": \"Hello\", \"message\": \"It \
         works.\", \
         \"recipient\": \"you@example.com\", \"channels\": [\"EMAIL\", \"SLACK\"]}}'\n  curl -s \
         '{url}/v1/messages?limit=5' \
         -H \"authorization: Bearer $TOKEN\"\n\nList the messages of all partners, as an operator:\n\n{}\n  curl -s \
         '{url}/v1/messages?limit=5' -H \"authorization: Bearer $OPERATOR\"\n\nOr at this machine: notihub tail --url \
         {url} --data-dir {folder}\n\
         (send, status, webhook … find this hub with the same two flags, or NOTIHUB_URL and \
         NOTIHUB_DATA_DIR){listen}\n\n\
         The documents: {url}/docs, or notihub docs\n\n\
         Ctrl-C stops everything; the data stays.\n",
        sign_in("TOKEN", &kept.partner),
        sign_in("OPERATOR", &kept.operator),
    );
}
