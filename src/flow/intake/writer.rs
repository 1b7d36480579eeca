//! Writer: group commit. Requests that arrive during a commit are written together in the next one; a lone request
//! waits for no other.

use std::sync::Arc;

use super::announce::announce;
use super::insert::insert;
use super::judge::answers;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::hub::intake_queue::{Request, Requests};
use crate::model::idempotency::Accepted;
use crate::shutdown::may_die_at;
use crate::store::message::NewMessageRow;

/// Starts the writer tasks: several (`intake_writers`), so that one writes a group while another's commit waits for the
/// disk. They end when the process stops and the queue is empty.
pub fn start(hub: &Hub, requests: Requests) {
    let requests = Arc::new(requests);
    for _ in 0..hub.settings.api.intake_writers {
        let (hub, requests) = (hub.clone(), requests.clone());
        hub.clone().shutdown.spawn(async move {
            while let Some(group) = requests.next_group(&hub.shutdown).await {
                write_group(&hub, group).await;
            }
        });
    }
}

async fn write_group(hub: &Hub, group: Vec<Request>) {
    let inserts: Vec<&NewMessageRow> = group.iter().map(|r| &r.insert).collect();
    match write(hub, &inserts).await {
        Ok(answers) => group.into_iter().zip(answers).for_each(|(request, answer)| request.answer(answer)),
        Err(Error::Unavailable(why)) => {
            group.into_iter().for_each(|request| request.answer(Err(Error::Unavailable(why.clone()))));
        }
        // One bad request must not fail its group: each is written by itself.
        Err(_) if group.len() > 1 => {
            for request in group {
                Box::pin(write_group(hub, vec![request])).await;
            }
        }
        Err(e) => {
            if matches!(e, Error::Refused(_)) {
                hub.metrics.rejected_input.inc();
                tracing::error!(error = %e, "the database refused a message that the parser accepted");
            }
            if let Some(request) = group.into_iter().next() {
                request.answer(Err(e));
            }
        }
    }
}

async fn write(hub: &Hub, inserts: &[&NewMessageRow]) -> Result<Vec<Result<Accepted>>> {
    let (mut conn, now) = (hub.store.intake().acquire().await?, hub.clock.now());
    hub.bulk.note_prompt();
    may_die_at("accept.before_commit");
    let inserted = insert(hub, &mut conn, inserts, now).await?;
    may_die_at("accept.after_commit");
    hub.metrics.intake_group.with_label_values::<&str>(&[]).observe(inserts.len() as f64);
    let answers = answers(&mut *conn, inserts, &inserted).await?;
    let accepted = inserts.iter().zip(&answers).filter_map(|(insert, answer)| Some((*insert, answer.as_ref().ok()?)));
    announce(hub, &accepted.collect::<Vec<_>>(), now);
    Ok(answers)
}
