//! Intake groups commits: requests that arrive while a commit is under way are written together in the next one. A lone
//! request waits for nobody. Each caller is answered after the commit that holds its message.

use std::sync::Arc;

use tokio::sync::{AcquireError, Mutex, Semaphore, SemaphorePermit, mpsc, oneshot};

use super::accept::{Accepted, announce, holders, judge};
use crate::error::{Error, Result};
use crate::hub::{Hub, Rate};
use crate::limits;
use crate::shutdown::may_die_at;
use crate::store::message::{self, Insert};

pub struct Request {
    insert: Insert,
    answer: oneshot::Sender<Result<Accepted>>,
}

/// The door to the writers.
pub struct Intake {
    requests: mpsc::Sender<Request>,
    batches: Semaphore,
}

impl Intake {
    pub fn new(requests: mpsc::Sender<Request>) -> Intake {
        Intake { requests, batches: Semaphore::new(limits::BATCHES_AT_ONCE) }
    }

    /// A batch's turn to be read and written. Few at once: a statement with hundreds of messages keeps a core of the database busy
    /// for as long as it runs, and single messages are not to wait for it.
    pub async fn batch<'a>(&'a self, own: &'a Rate) -> Result<[SemaphorePermit<'a>; 2]> {
        // First among one's own: who waits for those takes no turn of others.
        let turns = async { Ok::<_, AcquireError>([own.batches.acquire().await?, self.batches.acquire().await?]) };
        let turns = tokio::time::timeout(limits::BATCH_TURN, turns).await;
        turns.ok().and_then(|turns| turns.ok()).ok_or(Error::Busy("too many batches wait to be written"))
    }

    /// Resolves when the message is durable, or refused.
    pub async fn write(&self, insert: Insert) -> Result<Accepted> {
        let (answer, answered) = oneshot::channel();
        self.requests
            .try_send(Request { insert, answer })
            .map_err(|_| Error::Busy("too many requests wait to be written"))?;
        answered.await.map_err(|_| Error::Unavailable("the writer stopped before it answered".into()))?
    }
}

/// Several writers, so that one group gathers and writes while another's commit waits for the disk.
pub fn start_writers(hub: &Hub, requests: mpsc::Receiver<Request>, writers: u16) {
    let requests = Arc::new(Mutex::new(requests));
    for _ in 0..writers {
        let (hub, requests) = (hub.clone(), requests.clone());
        hub.clone().shutdown.spawn(async move {
            loop {
                let mut group = Vec::new();
                {
                    let mut requests = requests.lock().await;
                    tokio::select! {
                        // What already waits is written before we look at the signal to stop.
                        biased;
                        n = requests.recv_many(&mut group, limits::INTAKE_GROUP) => if n == 0 { return },
                        () = hub.shutdown.stopping() => {
                            requests.close();
                            if requests.is_empty() { return }
                            continue;
                        }
                    }
                }
                write_group(&hub, group).await;
            }
        });
    }
}

async fn write_group(hub: &Hub, group: Vec<Request>) {
    let inserts: Vec<&Insert> = group.iter().map(|r| &r.insert).collect();
    match write(hub, &inserts).await {
        Ok(answers) => {
            for (request, answer) in group.into_iter().zip(answers) {
                // A caller that went away asks again with its key.
                let _gone = request.answer.send(answer);
            }
        }
        Err(Error::Unavailable(why)) => {
            for request in group {
                let _gone = request.answer.send(Err(Error::Unavailable(why.clone())));
            }
        }
        // One request must not spoil the others of its group: each for itself.
        Err(_) if group.len() > 1 => {
            for request in group {
                Box::pin(write_group(hub, vec![request])).await;
            }
        }
        Err(e) => {
            if matches!(e, Error::Refused(_)) {
                hub.metrics.rejected_input.inc();
                tracing::error!(error = %e, "the database refused input that parsing let through");
            }
            if let Some(request) = group.into_iter().next() {
                let _gone = request.answer.send(Err(e));
            }
        }
    }
}

async fn write(hub: &Hub, inserts: &[&Insert]) -> Result<Vec<Result<Accepted>>> {
    let (db, now) = (hub.store.intake(), hub.clock.now());
    may_die_at("accept.before_commit");
    let written = message::insert(db, inserts, now).await?;
    may_die_at("accept.after_commit");
    hub.metrics.intake_group.with_label_values::<&str>(&[]).observe(inserts.len() as f64);
    let answers = judge(inserts, holders(db, inserts, &written).await?);
    let accepted = inserts.iter().zip(&answers).filter_map(|(insert, answer)| Some((*insert, answer.as_ref().ok()?)));
    announce(hub, &accepted.collect::<Vec<_>>(), now);
    Ok(answers)
}
