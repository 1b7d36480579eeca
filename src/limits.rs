//! Numbers that only we may change, each with its reason. What an operator may change is in `config`.

use std::time::Duration;

/// Longest a statement of ours may run. Below the call budget, so that a stuck database is noticed before a lease is.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest a request waits for a connection: then 503 with Retry-After is kinder than a queue nobody sees. Longer than
/// connecting takes with a busy server, or over TLS with a far one: what a request gives up half-way, the next one begins anew.
pub const POOL_ACQUIRE: Duration = Duration::from_secs(3);
/// Workers have nobody waiting for an answer: they rather wait than fail.
pub const POOL_ACQUIRE_ENGINE: Duration = Duration::from_secs(10);

/// Longest that connecting to one of several database servers may take, unless the URL has connect_timeout.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the chosen one of several database servers is asked whether it will still do.
pub const SERVER_LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest a session may take to answer, and to hear its own notice, before it counts as deaf. Notices take
/// milliseconds; an overloaded server is not to be taken for a pooler.
pub const SESSION_PROOF: Duration = Duration::from_secs(10);
/// A listener that heard nothing for this long sends itself a notice.
pub const LISTEN_PROVEN_EVERY: Duration = Duration::from_secs(10);
/// Longest that `/readyz` waits for a commit before it says no; less than the time-outs of the usual load balancers.
pub const WRITE_PROOF: Duration = Duration::from_secs(2);
/// How long a commit proves that the database takes writes: asking more often costs no more writes.
pub const WRITE_PROOF_KEPT: Duration = Duration::from_secs(1);

/// Retention by partition: partitions are a week long …
pub const PARTITION_DAYS: i64 = 7;
/// … and made this many weeks ahead, so that a month without the loop does no harm.
pub const PARTITIONS_AHEAD: i64 = 5;
/// The audit log is kept by months, made this many ahead: an installation whose workers stand still for a quarter of a year
/// goes on writing it, and its default partition is there for all that comes later.
pub const AUDIT_MONTHS_AHEAD: u32 = 3;
/// Rows after which a search of everything says how far it is.
pub const SEARCH_PROGRESS: u64 = 100_000;
/// Looks of one actor at one object within this time are one entry of the audit log.
pub const LOOKS_TOGETHER: chrono::TimeDelta = chrono::TimeDelta::minutes(1);
/// A message lives in the partition of its creation, so it must have gone long before that is dropped.
pub const SCHEDULE_AHEAD: Duration = Duration::from_secs(60 * 24 * 3600);
/// A `scheduledAt` that is past by no more than this is taken as now: callers' clocks differ.
pub const SCHEDULE_GRACE: Duration = Duration::from_secs(60);

/// One request's body. Ten thousand recipients with room to spare. `notihub.enqueue` has the same.
pub const BODY_BYTES: usize = 1 << 20;
/// A batch's body.
pub const BATCH_BYTES: usize = 8 << 20;
pub const BATCH_MESSAGES: usize = 1_000;
/// Deliveries of one message.
pub const DELIVERIES: usize = 10_000;
/// Keys and items in one body: what a reader would have to hold at once.
pub const JSON_NODES: usize = 200_000;

/// Faults that are told of one request: a body of a hundred thousand wrong items needs no hundred thousand answers.
pub const FAULTS: usize = 50;
/// Ways one message goes out: entries of `channels`.
pub const CHANNELS: usize = 50;
/// All contents of one message, a body that serves several channels counted for each: what a worker loads to send it.
pub const CONTENT_BYTES: usize = 1 << 20;

/// A body of a few fields.
pub const SMALL_BODY_BYTES: usize = 16 << 10;
/// A partner's or a key's name.
pub const NAME_CHARS: usize = 64;
/// A client's secret, or a refresh token: ours have less than half as many.
pub const SECRET_CHARS: usize = 256;

pub const KIND_CHARS: usize = 64;
pub const CLIENT_MSG_ID_CHARS: usize = 128;
pub const TITLE_CHARS: usize = 250;
pub const SUBJECT_CHARS: usize = 250;
pub const TEXT_BYTES: usize = 64 << 10;
pub const HTML_BYTES: usize = 256 << 10;
/// Slack takes no more than 50 blocks in a message.
pub const SLACK_BLOCKS: usize = 50;
/// Slack cuts a text at 40,000 characters.
pub const SLACK_TEXT_CHARS: usize = 40_000;
pub const METADATA_BYTES: usize = 4 << 10;
pub const METADATA_KEY_CHARS: usize = 64;
pub const EMAIL_BYTES: usize = 254;
/// E.164 has at most 15 digits; as many again for what people put between them.
pub const PHONE_DIGITS: usize = 15;
pub const PHONE_CHARS: usize = 30;
/// A user key of Naver Talk: theirs have some twenty characters.
pub const USER_KEY_CHARS: usize = 64;
/// A template's code at Kakao.
pub const TEMPLATE_CODE_CHARS: usize = 64;
/// The subject of an LMS or MMS, as CP949: carriers cut what is longer.
pub const MOBILE_SUBJECT_BYTES: usize = 40;

/// Requests a second that a partner may be given.
pub const PARTNER_TPS_MOST: i32 = 1_000_000;
/// Days of look-up and of retention that a partner may be given.
pub const PARTNER_DAYS_MOST: i16 = 3_650;

/// Endpoints of one partner: each event is written once for each that asks for it.
pub const ENDPOINTS: i64 = 20;
pub const ENDPOINT_DESCRIPTION_CHARS: usize = 250;
/// Headers of the owner's own, beside ours: together within the 8 KiB that most servers take.
pub const ENDPOINT_HEADERS: usize = 10;
pub const ENDPOINT_HEADER_NAME_BYTES: usize = 64;
pub const ENDPOINT_HEADER_VALUE_BYTES: usize = 1_024;
/// Deliveries that an endpoint's health is told from.
pub const HEALTH_DELIVERIES: i64 = 1_000;
/// Failures that its health tells one by one.
pub const HEALTH_FAILURES: usize = 5;
/// How often endpoints that were resumed are looked at for what is parked yet …
pub const RELEASE_EVERY: Duration = Duration::from_secs(10);
/// … and for how long after: a worker that read an endpoint while it was paused may park its delivery after it was resumed.
pub const RELEASE_FOR: chrono::TimeDelta = chrono::TimeDelta::hours(1);
/// Notices that a message's story tells: of ten thousand deliveries nobody reads each.
pub const TIMELINE_WEBHOOKS: i64 = 1_000;

/// Requests that may wait for the group commit before newcomers are told 503: about a second's worth.
pub const INTAKE_QUEUE: usize = 8_192;
/// Messages written in one statement: beyond this a commit takes longer than it saves.
pub const INTAKE_GROUP: usize = 500;

/// Batches written at the same time by one process …
pub const BATCHES_AT_ONCE: usize = 3;
/// … of one partner fewer, so that another has its turn.
pub const BATCHES_OF_ONE: usize = 2;
/// … and how long one waits for its turn before it is told 503.
pub const BATCH_TURN: Duration = Duration::from_secs(5);

/// Newest messages of a partner among which sealed content is looked for when a process starts.
pub const SEALED_LOOK: i64 = 100;

/// How often a relay looks for what was enqueued in SQL, when it found nothing. Asked for, not told: a notification would make
/// the commits of all who enqueue wait for each other.
pub const RELAY_EVERY: Duration = Duration::from_millis(250);
/// Requests a relay takes in one round, shared among …
pub const RELAY_REQUESTS: i64 = 500;
/// … at most so many partners.
pub const RELAY_PARTNERS: i64 = 20;
/// Requests that wait are counted so far and no further.
pub const RELAY_COUNT: i64 = 10_000;

/// Steps settled in one statement.
pub const SETTLE_BATCH: usize = 500;
/// Rows a reap, promote or sweep touches in one transaction: locks are held briefly.
pub const HOUSEKEEPING_BATCH: i64 = 1_000;

/// Dead letters redriven, or events replayed, in one transaction, whatever the rate.
pub const REDRIVE_CHUNK: usize = 1_000;
/// Dead letters looked at in one statement for those that a filter passes.
pub const REDRIVE_LOOK: i64 = 10_000;
/// Longest a step of a job looks for more to do: it holds a transaction open.
pub const REDRIVE_STEP: Duration = Duration::from_millis(500);
/// How often jobs are looked for. Asked for, not told: jobs are rare and not urgent …
pub const REDRIVE_EVERY: Duration = Duration::from_millis(250);
/// … and how long a worker rests after a step: many small ones hold up what is new for less long than few large ones.
pub const REDRIVE_REST: Duration = Duration::from_millis(50);
pub const REDRIVE_RATE_DEFAULT: i32 = 100;
/// Above this the rate is the workers' own.
pub const REDRIVE_RATE_MOST: i64 = 10_000;
/// Dead letters are counted so far and no further …
pub const REDRIVE_COUNT: i64 = 250_000;
/// … nor for longer: somebody waits for the answer.
pub const REDRIVE_COUNTING: Duration = Duration::from_secs(5);
/// Jobs of one partner that run at the same time.
pub const REDRIVES_AT_ONCE: i64 = 20;
/// A window of time is replayed in slices: of this length where much happened …
pub const REPLAY_SLICE: chrono::TimeDelta = chrono::TimeDelta::seconds(1);
/// … and doubled where little did, up to this: a slice holds what all partners' messages did meanwhile.
pub const REPLAY_SLICE_MOST: chrono::TimeDelta = chrono::TimeDelta::minutes(10);

/// Messages whose content is erased in one transaction.
pub const WIPE_MESSAGES: i64 = 500;

/// `fsck` checks messages in slices of so many bytes of rows, or a week where that is more: hash tables on disk stay below
/// that, and no snapshot is older than one statement over it.
pub const FSCK_SLICE_BYTES: i64 = 1 << 30;
/// Findings kept of each invariant and slice. All are counted.
pub const FSCK_FINDINGS: usize = 1_000;

/// How often what a worker was lost with is looked for, when there was none.
pub const SUSPECTS_EVERY: Duration = Duration::from_secs(1);

/// How many webhooks that a worker was lost with a process holds at a time; of each other channel one. Their endpoints are
/// strangers', and a few that do not answer must not hold up all others.
pub const SUSPECT_WEBHOOKS: usize = 8;

/// How far behind now a watermark stays: rows commit out of order, and hosts' clocks differ a little.
pub const WATERMARK_SLACK: Duration = Duration::from_millis(250);
/// Now and then a claim looks this far back for what fell behind its watermark …
pub const NEAR_SWEEP: Duration = Duration::from_secs(10);
pub const NEAR_SWEEP_EVERY: Duration = Duration::from_secs(2);
/// … and rarely at everything.
pub const DEEP_SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long what was counted may be on its way into the database.
pub const FAIR_SLACK: Duration = Duration::from_millis(50);
/// Deliveries claimed from overflow lanes at once while others post too: a claim of hundreds keeps the database from theirs.
pub const OVERFLOW_CLAIM: i64 = 100;
/// A loop that found all room taken by the other looks again this soon.
pub const RESERVE_AGAIN: Duration = Duration::from_millis(5);
/// How long others count as posting after their last message.
pub const OTHERS_FOR: Duration = Duration::from_secs(1);
/// How often lanes in question are looked at …
pub const FAIR_LOOK_EVERY: Duration = Duration::from_millis(100);
/// … and how often processes tell each other whom they accept much from.
pub const FAIR_TELL_EVERY: Duration = Duration::from_secs(1);

/// How often signing keys are read again because a token names one that is not known here.
pub const KEYS_READ_EVERY: chrono::TimeDelta = chrono::TimeDelta::seconds(5);

/// Lists: rows a page has at most, and messages looked at for one page when a filter passes few.
pub const PAGE_MAX: i64 = 200;
pub const PAGE_DEFAULT: i64 = 50;
pub const PAGE_LOOK: usize = 5_000;

/// Days of statistics in one answer: a quarter, with a row for each of twelve types.
pub const STATS_DAYS_MAX: i64 = 100;
pub const STATS_DAYS_DEFAULT: i64 = 7;
/// How often what was counted is added to its days: so few rows wait meanwhile that reading them costs nothing.
pub const ROLLUP_EVERY: Duration = Duration::from_secs(3);

/// Slow clients: to send the head of a request, and to send its body.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A caller that reads its answers: the socket takes something at least so often.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a closed connection still reads what its caller sends, so that the caller gets the last answer: in all, …
pub const LINGER: Duration = Duration::from_secs(30);
/// … without a byte, …
pub const LINGER_IDLE: Duration = Duration::from_secs(5);
/// … and while the process stops.
pub const LINGER_STOPPING: Duration = Duration::from_secs(1);
/// Connections of one server that carry requests; more wait to be accepted.
pub const CONNECTIONS: usize = 8_192;
/// Connections of one server that carry a stream, beside those; a further stream is refused. As many: each costs a
/// socket, a task and its buffers, as one that carries requests does.
pub const STREAMS: usize = 8_192;
/// Of the connections that carry requests, from one address (IPv6: one /64), those on which nobody has signed in. Many
/// domain services may share an address; few sign in at the same moment.
pub const STRANGERS_OF_ADDRESS: usize = 256;
/// Longest request line path: longer is 414.
pub const URI_BYTES: usize = 8 << 10;

/// How long a webhook waits in memory for its endpoint's turn, before it is given back and comes again later.
pub const GATE_WAIT: Duration = Duration::from_secs(1);
/// How long a message waits for the answer to another one to the same destination of a chat.
pub const LINE_WAIT: Duration = Duration::from_secs(1);
/// Open webhooks that a look for stalled sequences goes over, …
pub const SEQUENCES_LOOK: i64 = 10_000;
/// … and how often one is made.
pub const SEQUENCES_EVERY: Duration = Duration::from_secs(10);
/// Longest an endpoint stays paused: then it is disabled, and what waits for it becomes dead letters.
pub const ENDPOINT_PAUSED: chrono::TimeDelta = chrono::TimeDelta::days(30);
/// Nothing but failures for so long disables an endpoint.
pub const ENDPOINT_FAILING: chrono::TimeDelta = chrono::TimeDelta::days(5);
/// Messages looked at in one transaction whether they are complete: one may have ten thousand deliveries.
pub const COMPLETE_BATCH: i64 = 200;
/// Endpoints of a partner that may be deleted in a day: making and deleting them is no pastime.
pub const ENDPOINTS_DELETED: i64 = 100;
/// A deleted endpoint is forgotten after so long.
pub const ENDPOINT_FORGOTTEN: chrono::TimeDelta = chrono::TimeDelta::days(7);
/// How often marks of ended deliveries are looked at, and what endpoints answered is written.
pub const COMPLETE_EVERY: Duration = Duration::from_millis(250);
pub const NOTE_ANSWERS_EVERY: Duration = Duration::from_secs(5);
/// Causes of alerts are looked for this often.
pub const WATCH_EVERY: Duration = Duration::from_secs(5);
/// Operators are told of a limit of which so much is used, if it is one of so many requests: of less, each is much.
pub const LIMIT_ALERT_PERCENT: u64 = 80;
pub const LIMIT_ALERT_FROM: u32 = 10;
/// Stored from a provider's answer: enough to understand it, not a copy of it.
pub const PROVIDER_DETAIL_CHARS: usize = 1024;

/// How often processes look at what all know of the providers, and tell what became of the requests they took.
pub const TRAFFIC_EVERY: Duration = Duration::from_secs(1);
/// Spans in which a provider was not asked become one when so little lies between them.
pub const OUTAGES_MERGE: chrono::TimeDelta = chrono::TimeDelta::seconds(2);
/// Such spans that a message's story is told from.
pub const TIMELINE_OUTAGES: i64 = 1_000;

/// A webhook's whole time, the answer's body included, if the call budget is not less: what partners are told.
pub const WEBHOOK_BUDGET: Duration = Duration::from_secs(15);
/// Kept of what an endpoint answers, for its owner to see.
pub const WEBHOOK_ANSWER_BYTES: usize = 1024;
/// Partners whose connections are kept; making one for a further partner takes less than 0.1 ms.
pub const WEBHOOK_CLIENTS: usize = 1024;

/// What a provider calls back with, at most: thousands of results in one body.
pub const RECEIPT_BODY_BYTES: usize = 8 << 20;
/// Results in one body.
pub const RECEIPTS_IN_BODY: usize = 20_000;
/// Bodies of providers that are read, believed and kept at the same time, and how long a further one waits for its turn.
pub const RECEIPT_BODIES: usize = 16;
pub const RECEIPT_TURN: Duration = Duration::from_secs(2);
/// How often the log tells of callbacks of one provider that were refused.
pub const REFUSED_CALLBACK_LOG_EVERY: chrono::TimeDelta = chrono::TimeDelta::minutes(1);
/// A provider's own key of a piece of news; what is longer is kept as its digest.
pub const EVENT_KEY_BYTES: usize = 200;
/// Receipts written by one statement, …
pub const RECEIPTS_WRITTEN: usize = 2_000;
/// … and applied in one transaction.
pub const RECEIPT_BATCH: i64 = 500;
/// How often those that wait are looked at: nobody is woken for them.
pub const RECEIPT_EVERY: Duration = Duration::from_millis(200);
/// A receipt about what a worker holds is looked at again after as long as it waits, within these.
pub const RECEIPT_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// One about nothing of ours, within these: what it is about may be restored, or be written late.
pub const RECEIPT_UNMATCHED_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// After so long somebody should look why a provider tells of what is not ours.
pub const UNMATCHED_AGED: chrono::TimeDelta = chrono::TimeDelta::minutes(10);
/// How often an operator's word is tried to be written while others write the same provider's state.
pub const STATE_ROUNDS: usize = 5;
/// A provider that might have been probed for so long, and is not in the settings, is no outage any more.
pub const UNPROBED_FOR: chrono::TimeDelta = chrono::TimeDelta::minutes(10);
/// After so long nobody restores or writes what it is about. One that names nothing of ours by then is left alone, for …
pub const UNMATCHED_LEFT: chrono::TimeDelta = chrono::TimeDelta::days(1);
pub const UNMATCHED_LEFT_FOR: chrono::TimeDelta = chrono::TimeDelta::days(36_500);
/// Those that match nothing are counted up to this.
pub const UNMATCHED_COUNTED: i64 = 10_000;
/// How often overdue receipts are looked for.
pub const OVERDUE_EVERY: Duration = Duration::from_secs(1);
/// How often the deliveries that wait for a channel that is down are read from the beginning again.
pub const LEAVE_RESTART: chrono::TimeDelta = chrono::TimeDelta::seconds(30);
/// An account that this process does not know may be back with the next start.
pub const OVERDUE_AGAIN: Duration = Duration::from_secs(600);
/// How often a provider's list of results is read, …
pub const POLL_EVERY: Duration = Duration::from_secs(5);
/// … how long its reader keeps it beyond the call budget, and how long it is left alone after a failure.
pub const POLL_MARGIN: Duration = Duration::from_secs(10);
pub const POLL_REST: Duration = Duration::from_secs(30);
/// Receipts that a message's story tells.
pub const TIMELINE_RECEIPTS: i64 = 1_000;

/// Channels that may stand by for one, the one after the other.
pub const FALLBACKS: usize = 2;
/// Attempts that may be asked for before another channel takes over.
pub const AFTER_ATTEMPTS: i64 = 10;
/// Seconds after which another channel may take the place of what was sent without a receipt.
pub const NO_RECEIPT_SECONDS: std::ops::RangeInclusive<i64> = 10..=259_200;
