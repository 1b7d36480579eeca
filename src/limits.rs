//! Numbers that are fixed in the program, each with its reason. Those that an operator may change are in `config`.

use std::time::Duration;

/// Longest time of a statement. Below the call budget, so that a stuck database is noticed before a lease ends.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that a request waits for a connection; then it is answered 503 with Retry-After. Longer than connecting
/// takes to a busy server, or over TLS to a distant one: a connection given up half-way is begun anew by the next
/// request.
pub const POOL_ACQUIRE: Duration = Duration::from_secs(3);
/// The same for workers. Longer, because no caller waits for an answer.
pub const POOL_ACQUIRE_ENGINE: Duration = Duration::from_secs(10);

/// Longest time to connect to one of several database servers, unless the URL has connect_timeout.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the chosen one of several database servers is checked for whether it still takes writes.
pub const SERVER_LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest time in which a session must answer and receive its own notification; after it the session counts as one
/// that cannot receive any. Notifications take milliseconds; the rest is for an overloaded server.
pub const SESSION_PROOF: Duration = Duration::from_secs(10);
/// A listener that received nothing for this long sends itself a notification.
pub const LISTEN_PROVEN_EVERY: Duration = Duration::from_secs(10);
/// Longest time that `/readyz` waits for a commit; less than the time-outs of the usual load balancers.
pub const WRITE_PROOF: Duration = Duration::from_secs(2);
/// How long one commit counts as proof that the database takes writes, however often `/readyz` is called.
pub const WRITE_PROOF_KEPT: Duration = Duration::from_secs(1);

/// Length of a partition.
pub const PARTITION_DAYS: i64 = 7;
/// Partitions made ahead, so that a month without the loop does no harm.
pub const PARTITIONS_AHEAD: i64 = 5;
/// Months of the audit log made ahead: an installation whose workers stand still for a quarter of a year still writes
/// it; later entries go to the default partition.
pub const AUDIT_MONTHS_AHEAD: u32 = 3;
/// Rows between two reports of the progress of a search of everything.
pub const SEARCH_PROGRESS: u64 = 100_000;
/// Reads of one object by one actor within this time are one entry of the audit log.
pub const LOOKS_TOGETHER: chrono::TimeDelta = chrono::TimeDelta::minutes(1);
/// How far ahead a message may be scheduled: it lives in the partition of its creation, which must not be dropped
/// before.
pub const SCHEDULE_AHEAD: Duration = Duration::from_secs(60 * 24 * 3600);
/// A `scheduledAt` that is past by no more than this counts as now: callers' clocks differ.
pub const SCHEDULE_GRACE: Duration = Duration::from_secs(60);

/// Body of one request: ten thousand recipients with room to spare. `notihub.enqueue` has the same limit.
pub const BODY_BYTES: usize = 1 << 20;
/// Body of a batch.
pub const BATCH_BYTES: usize = 8 << 20;
/// Messages of a batch.
pub const BATCH_MESSAGES: usize = 1_000;
/// Deliveries of one message.
pub const DELIVERIES: usize = 10_000;
/// Keys and items in one body: bounds the memory of the parser.
pub const JSON_NODES: usize = 200_000;

/// Faults reported for one request: a body of a hundred thousand wrong items needs no hundred thousand faults.
pub const FAULTS: usize = 50;
/// Entries of `channels` in one message.
pub const CHANNELS: usize = 50;
/// All contents of one message, a body that serves several channels counted for each: bounds what a worker loads.
pub const CONTENT_BYTES: usize = 1 << 20;

/// A body of a few fields.
pub const SMALL_BODY_BYTES: usize = 16 << 10;
/// Size of a body with a message for a room: 16 KiB of text may be written with escapes.
pub const CHAT_BODY_BYTES: usize = 64 << 10;
/// A partner's or a key's name.
pub const NAME_CHARS: usize = 64;
/// Characters of a client secret or refresh token; those of the hub have less than half as many.
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
/// E.164 has at most 15 digits; as many characters again for separators.
pub const PHONE_DIGITS: usize = 15;
pub const PHONE_CHARS: usize = 30;
/// A user key of Naver Talk; theirs have about twenty characters.
pub const USER_KEY_CHARS: usize = 64;
/// A template's code at Kakao.
pub const TEMPLATE_CODE_CHARS: usize = 64;
/// A URL of an item in an inbox.
pub const LINK_CHARS: usize = 2_000;
/// The category of an item in an inbox: a partner's own word.
pub const CATEGORY_CHARS: usize = 64;
/// The subject of an LMS or MMS, as CP949: carriers cut a longer one.
pub const MOBILE_SUBJECT_BYTES: usize = 40;

/// Requests a second that a partner may be given.
pub const PARTNER_TPS_MOST: i32 = 1_000_000;
/// Days of look-up and of retention that a partner may be given.
pub const PARTNER_DAYS_MOST: i16 = 3_650;

/// Endpoints of one partner: each event is written once for each endpoint that asks for it.
pub const ENDPOINTS: i64 = 20;
pub const ENDPOINT_DESCRIPTION_CHARS: usize = 250;
/// The owner's own headers, besides the hub's: together within the 8 KiB that most servers accept.
pub const ENDPOINT_HEADERS: usize = 10;
pub const ENDPOINT_HEADER_NAME_BYTES: usize = 64;
pub const ENDPOINT_HEADER_VALUE_BYTES: usize = 1_024;
/// Deliveries from which the health of an endpoint is computed.
pub const HEALTH_DELIVERIES: i64 = 1_000;
/// Failures that the health lists one by one.
pub const HEALTH_FAILURES: usize = 5;
/// How often parked webhooks of resumed endpoints are looked for.
pub const RELEASE_EVERY: Duration = Duration::from_secs(10);
/// How long after a resume they are looked for: a worker that read an endpoint while it was paused may park its
/// delivery after the resume.
pub const RELEASE_FOR: chrono::TimeDelta = chrono::TimeDelta::hours(1);
/// Webhooks in the timeline of one message, which may have tens of thousands.
pub const TIMELINE_WEBHOOKS: i64 = 1_000;

/// Requests that may wait for the group commit, about a second's worth; further ones are answered 503.
pub const INTAKE_QUEUE: usize = 8_192;
/// How long a process inserts and settles a partner's messages with the full statements after it saw the partner with
/// endpoints or erased keys, before it tries the plain ones again.
pub const FULL_WRITES_KNOWN: chrono::TimeDelta = chrono::TimeDelta::seconds(60);
/// Messages of a batch written in one statement, several of which make its transaction.
pub const BATCH_SLICE: usize = 100;
/// Messages written in one statement: a larger commit takes longer than it saves.
pub const INTAKE_GROUP: usize = 500;

/// Batches written at the same time by one process.
pub const BATCHES_AT_ONCE: usize = 3;
/// Of these, batches of one partner: fewer, so that another partner has its turn.
pub const BATCHES_OF_ONE: usize = 2;
/// How long a batch waits for its turn before it is answered 503.
pub const BATCH_TURN: Duration = Duration::from_secs(5);

/// Newest messages of a partner among which a process looks for sealed content when it starts.
pub const SEALED_LOOK: i64 = 100;

/// How often a relay looks for requests enqueued in SQL, if it found none. Polled, because a notification would
/// serialise the commits of all that enqueue.
pub const RELAY_EVERY: Duration = Duration::from_millis(250);
/// Requests that a relay takes in one round.
pub const RELAY_REQUESTS: i64 = 500;
/// Partners among which one round is shared.
pub const RELAY_PARTNERS: i64 = 20;
/// Waiting requests are counted up to this.
pub const RELAY_COUNT: i64 = 10_000;

/// Steps settled in one statement.
pub const SETTLE_BATCH: usize = 500;
/// Rows that one transaction of housekeeping (reap, promote, sweep) changes, so that locks are held briefly.
pub const HOUSEKEEPING_BATCH: i64 = 1_000;

/// Dead letters redriven, or events replayed, in one transaction, whatever the rate.
pub const REDRIVE_CHUNK: usize = 1_000;
/// Dead letters read in one statement to find those that match a filter.
pub const REDRIVE_LOOK: i64 = 10_000;
/// Longest time that a step of a job looks for more to do: it holds a transaction open.
pub const REDRIVE_STEP: Duration = Duration::from_millis(500);
/// How often jobs are looked for. Polled: jobs are rare and not urgent.
pub const REDRIVE_EVERY: Duration = Duration::from_millis(250);
/// How long a worker rests after a step: many small steps delay new deliveries for less long than few large ones.
pub const REDRIVE_REST: Duration = Duration::from_millis(50);
/// Deliveries a second of a job that names no rate.
pub const REDRIVE_RATE_DEFAULT: i32 = 100;
/// Highest rate of a job: above it the workers are the bound.
pub const REDRIVE_RATE_MOST: i64 = 10_000;
/// Dead letters are counted up to this.
pub const REDRIVE_COUNT: i64 = 250_000;
/// Longest time of a count: a caller waits for it.
pub const REDRIVE_COUNTING: Duration = Duration::from_secs(5);
/// Jobs of one partner that run at the same time.
pub const REDRIVES_AT_ONCE: i64 = 20;
/// Length of a slice of a replay where many events happened.
pub const REPLAY_SLICE: chrono::TimeDelta = chrono::TimeDelta::seconds(1);
/// Slices double in length where few events happened, up to this: a slice is read over the events of all partners.
pub const REPLAY_SLICE_MOST: chrono::TimeDelta = chrono::TimeDelta::minutes(10);

/// Messages whose content is erased in one transaction.
pub const WIPE_MESSAGES: i64 = 500;

/// Deliveries of one slice of `fsck`: its statements take about a second together, and their hash tables a few MB.
pub const FSCK_SLICE: i64 = 50_000;
/// What waits for so long although it could go on is a finding of `fsck`.
pub const FSCK_WAIT: chrono::TimeDelta = chrono::TimeDelta::minutes(5);
/// What was accepted within this time is checked in each round of `fsck --watch`; messages of that age may still be
/// written by a transaction that began before.
pub const FSCK_TAIL: chrono::TimeDelta = chrono::TimeDelta::minutes(10);
/// `fsck --watch` checks messages accepted within this time again and again.
pub const FSCK_HORIZON: chrono::TimeDelta = chrono::TimeDelta::hours(24);
/// Deliveries a second that `fsck --watch` checks of these: a fifth of what one core does.
pub const FSCK_WATCH_RATE: u32 = 10_000;
/// Time between two lines about the progress of a command whose standard error is no terminal.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// A worker that was seen within this time lives: three heartbeats and their delays.
pub const WORKER_SEEN: chrono::TimeDelta = chrono::TimeDelta::seconds(20);
/// Idempotency keys and messages are compared in stretches of ids of so many bits: 70 minutes.
pub const FSCK_STRETCH_BITS: i32 = 44;
/// Findings kept per invariant. All are counted.
pub const FSCK_FINDINGS: usize = 1_000;

/// Longest time of a request for the ledger: a caller waits for it, and it holds a connection. A day with more messages
/// is for the command.
pub const LEDGER_TIME: Duration = Duration::from_secs(10);
/// Requests for the ledger that one process answers at the same time, so that they leave connections to others.
pub const LEDGERS_AT_ONCE: usize = 2;
/// Messages that the ledger looks up in one statement.
pub const LEDGER_LOOK_UP: usize = 1_000;
/// Missing messages that the ledger lists.
pub const LEDGER_MISSING: usize = 1_000;

/// How often suspects (deliveries that a lost worker held) are looked for, if there was none.
pub const SUSPECTS_EVERY: Duration = Duration::from_secs(1);

/// Suspect webhooks that a process holds at a time; of each other channel it holds one. Endpoints belong to partners,
/// and a few that do not answer must not delay all others.
pub const SUSPECT_WEBHOOKS: usize = 8;

/// How far a watermark stays behind now: rows commit out of order, and the clocks of hosts differ a little.
pub const WATERMARK_SLACK: Duration = Duration::from_millis(250);
/// How far behind its watermark a near sweep looks for rows that committed late.
pub const NEAR_SWEEP: Duration = Duration::from_secs(10);
/// How often a near sweep is made.
pub const NEAR_SWEEP_EVERY: Duration = Duration::from_secs(2);
/// How often everything is looked at.
pub const DEEP_SWEEP_EVERY: Duration = Duration::from_secs(60);

/// How long a counted message may take to become visible in the database.
pub const FAIR_SLACK: Duration = Duration::from_millis(50);
/// Deliveries claimed from overflow lanes at once while prompt lanes are busy: a claim of hundreds delays theirs.
pub const OVERFLOW_CLAIM: i64 = 100;
/// How soon a loop tries again that found all slots taken by the other loop.
pub const RESERVE_AGAIN: Duration = Duration::from_millis(5);
/// How long a bulk statement waits for its turn at most while prompt lanes are busy.
pub const BULK_TURN: Duration = Duration::from_millis(50);
/// How long prompt lanes count as busy after a delivery was claimed from them or a single message was accepted.
pub const OTHERS_FOR: Duration = Duration::from_secs(1);
/// How often the progress of lanes is read in which a partner may have more than its share.
pub const FAIR_LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often processes tell each other how much partners have posted.
pub const FAIR_TELL_EVERY: Duration = Duration::from_secs(1);

/// Least time between two reads of signing keys because a token names an unknown one.
pub const KEYS_READ_EVERY: chrono::TimeDelta = chrono::TimeDelta::seconds(5);

/// Users that a process remembers; when reached, all are forgotten and read anew.
pub const USERS_REMEMBERED: usize = 20_000;
/// Partners whose user keys a process remembers; when reached, all are forgotten and read anew.
pub const USER_DOORS_REMEMBERED: usize = 4_096;
/// Requests a second of one user at one process, and how many at once after a pause.
pub const USER_REQUESTS: u32 = 50;
pub const USER_REQUESTS_BURST: u32 = 100;
/// Users that one user may block.
pub const USER_BLOCKS: i64 = 1_000;
/// Devices of one user; the oldest is removed for a new one.
pub const USER_DEVICES: i64 = 20;
/// A user's text about itself.
pub const USER_BIO_BYTES: usize = 2_000;
/// How long the former external id of a deleted user is known: twice as long as a token that names it may be valid.
pub const FORMER_EXTERNAL_KEPT: chrono::TimeDelta = chrono::TimeDelta::hours(48);
/// Passwords that a process hashes at the same time, and those that wait; a further sign-in is answered 503.
pub const PASSWORDS_AT_ONCE: usize = 2;
pub const PASSWORDS_WAITING: usize = 8;
/// How long a remembered user is used without a notification of a change.
pub const USER_KEPT: chrono::TimeDelta = chrono::TimeDelta::seconds(10);
/// Least time between two records of when a user was last seen.
pub const USER_SEEN_EVERY: chrono::TimeDelta = chrono::TimeDelta::minutes(1);
/// How often missing users are looked for and made before a request is answered 503: each round fails only if others
/// make the same users at the same moment, or a random code is taken.
pub const USER_ROUNDS: usize = 4;

/// Rooms that one user may make in an hour at one process, and the burst.
pub const ROOMS_MADE: u32 = 30;
/// Users that a request makes members of a room.
pub const PARTICIPANTS: usize = 100;
/// Members of a room that answers list, and up to which they show who has read a message.
pub const PARTICIPANTS_SHOWN: i64 = 100;
/// Rooms of a user whose news its connections get.
pub const ROOMS_LIVE: i64 = 200;
/// Rooms of which a process remembers what never changes; when reached, all are forgotten and read anew.
pub const ROOMS_KNOWN: usize = 65_536;
/// Messages that wait for one writer of rooms; a further one is answered 503. And messages in one statement.
pub const CHAT_QUEUE: usize = 4_096;
pub const CHAT_GROUP: usize = 100;
/// Messages of rooms whose tempIds a process remembers, and as many before them; about 12 bytes each.
pub const RECENT_SENDS: usize = 50_000;
/// How often marks of readers are written, and how many in one statement.
pub const MARKS_EVERY: Duration = Duration::from_millis(250);
pub const MARKS_ROUND: usize = 1_000;
/// Live notes that wait for other processes, and for one connection; more are dropped. How often they are sent.
pub const LIVE_NOTES: usize = 1_000;
pub const LIVE_NOTES_EVERY: Duration = Duration::from_millis(50);
/// Bytes of a WebSocket message; up to how many are read of one that is larger, so that the close names the reason; of
/// what waits in memory to be written; and of the buffers.
pub const SOCKET_MESSAGE_BYTES: usize = 64 * 1_024;
pub const SOCKET_READ_BYTES: usize = 256 * 1_024;
pub const SOCKET_WRITE_BYTES: usize = 1_024 * 1_024;
pub const SOCKET_BUFFER_BYTES: usize = 4 * 1_024;
/// Longest time in which a frame must be written to a WebSocket; a slower client is closed, and resumes.
pub const SOCKET_WRITE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often unread and read counts are read anew, because a note of them may be lost; and how long a stream of who
/// reads a message lasts.
pub const UNREAD_AGAIN: Duration = Duration::from_secs(30);
pub const READ_COUNT_MOST: Duration = Duration::from_secs(3_600);
/// WebSockets of a user at a process; one more ends the oldest.
pub const SOCKETS_OF_USER: usize = 10;
/// How often a process records that a user did something.
pub const ACTIVE_EVERY: chrono::TimeDelta = chrono::TimeDelta::seconds(60);
/// Over how long a stopping process spreads the ends of its connections, so that clients do not come back all at once;
/// at most a fifth of its grace.
pub const SOCKETS_END_OVER: Duration = Duration::from_secs(5);
/// How often a connection that asks for it gets the numbers of its streams: every third heart-beat.
pub const STREAM_HEADS_EVERY: Duration = Duration::from_secs(30);
/// A user whose last connection ended is shown as OFFLINE after this time, unless it comes back.
pub const OFFLINE_AFTER: Duration = Duration::from_secs(10);
/// How long a connection waits before it shows itself to those who came: many come at once.
pub const PRESENCE_ANSWER: Duration = Duration::from_secs(1);
/// Users that one user has blocked, or is blocked by, as far as a live connection knows them.
pub const BLOCKS_KNOWN: i64 = 5_000;
/// A user types no more after this time without another sign of it.
pub const TYPING_OVER: Duration = Duration::from_secs(5);
/// How long a connection remembers which live notes a room's settings allow.
pub const ROOM_RULES_KEPT: Duration = Duration::from_secs(10);
/// Least time between two reads of a user's rooms for one connection: in between, what changes is gathered.
pub const ROOMS_AGAIN: Duration = Duration::from_millis(100);
/// Least time between two notes that a user types in a room.
pub const TYPING_EVERY: chrono::TimeDelta = chrono::TimeDelta::seconds(1);
/// How long former contents of messages are kept for moderators, and when members read which message.
pub const CHAT_VERSIONS_KEPT: chrono::TimeDelta = chrono::TimeDelta::days(30);
pub const READ_MARKS_KEPT: chrono::TimeDelta = chrono::TimeDelta::days(90);

/// Most rows of a page.
pub const PAGE_MAX: i64 = 200;
/// Rows of a page if the caller names no number.
pub const PAGE_DEFAULT: i64 = 50;
/// Messages read for one page if a filter matches few.
pub const PAGE_LOOK: usize = 5_000;

/// Days of statistics in one answer: a quarter, with a row for each of twelve types.
pub const STATS_DAYS_MAX: i64 = 100;
pub const STATS_DAYS_DEFAULT: i64 = 7;
/// How often statistics are added to their days: few rows wait meanwhile, so reading them costs little.
pub const ROLLUP_EVERY: Duration = Duration::from_secs(3);

/// Longest time in which a client must send the head of a request.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time in which a client must send the body of a request.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time without progress of an answer: a slower client is disconnected.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a closed connection still reads what its client sends, so that the client receives the last answer.
pub const LINGER: Duration = Duration::from_secs(30);
/// The same, without a byte from the client.
pub const LINGER_IDLE: Duration = Duration::from_secs(5);
/// The same, while the process stops.
pub const LINGER_STOPPING: Duration = Duration::from_secs(1);
/// Connections of one server that carry requests; more wait to be accepted.
pub const CONNECTIONS: usize = 8_192;
/// Connections of one server that carry a stream, besides those, unless `--live-connections` says otherwise; a further
/// stream is refused.
pub const STREAMS: u32 = 20_000;
/// News of a stream that wait for one connection; a connection that takes less is ended, and its client resumes.
pub const STREAM_NEWS: usize = 256;
/// Events that a client gets when it resumes; one that missed more begins anew.
pub const STREAM_REPLAY: usize = 500;
/// Bytes of messages' texts that are replayed, and how many connections of a process read a replay at once.
pub const STREAM_REPLAY_BYTES: usize = 2 << 20;
pub const REPLAYS_AT_ONCE: usize = 16;
/// Streams read in one statement, and events of each: the rest is read by the next.
pub const STREAM_ROUND: usize = 1_000;
pub const STREAM_TAIL: usize = 200;
/// How often all streams that are listened to are compared with the database, and how many in one statement.
pub const SWEEP_EVERY: Duration = Duration::from_secs(2);
pub const STREAM_SWEEP: usize = 5_000;
/// Pause between two hints about streams: at most a hundred a second from a process.
pub const STREAM_HINT_PAUSE: Duration = Duration::from_millis(10);
/// How often messages to users that were erased are looked for.
pub const ERASE_USERS_EVERY: Duration = Duration::from_secs(60);
/// How often snoozed items are looked for whose time has come.
pub const SNOOZED_EVERY: Duration = Duration::from_secs(5);
/// How often a batch of items is put again that another worker put in part at the same moment.
pub const PUT_AGAIN: usize = 3;
/// Events of streams are kept for so long; a client that was away for longer begins anew.
pub const STREAM_EVENTS_KEPT: chrono::TimeDelta = chrono::TimeDelta::days(15);
/// How long a ticket for a stream is valid.
pub const TICKET_VALID: chrono::TimeDelta = chrono::TimeDelta::seconds(30);
/// How far back `fsck` looks for gaps in streams.
pub const STREAM_CHECKED: chrono::TimeDelta = chrono::TimeDelta::hours(1);
/// How often the events of watched messages are read, and for how long before the last one again: an event may be
/// committed later than one that happened after it.
pub const WATCH_MESSAGES_EVERY: Duration = Duration::from_millis(250);
pub const WATCH_AGAIN: chrono::TimeDelta = chrono::TimeDelta::seconds(5);
/// Messages that one process watches at the same time; a further one is refused.
pub const WATCHED_MESSAGES: usize = 1_000;
/// How often a process with live connections gives a sign of life, and how long one counts: three of them and their
/// delays.
pub const LIVE_BEAT: chrono::TimeDelta = chrono::TimeDelta::seconds(5);
pub const LIVE_SEEN: chrono::TimeDelta = chrono::TimeDelta::seconds(15);
/// How often opened and closed connections are recorded.
pub const CONNECTIONS_EVERY: Duration = Duration::from_secs(1);
/// A user of whom nothing came for so long is AWAY.
pub const AWAY_AFTER: chrono::TimeDelta = chrono::TimeDelta::minutes(5);
/// A comment goes over a stream without news this often, so that proxies keep it open and a lost peer is noticed.
pub const STREAM_HEARTBEAT: Duration = Duration::from_secs(15);
/// Connections that carry requests from one address (IPv6: one /64) without an authenticated request yet. Many domain
/// services may share an address; few sign in at the same moment.
pub const STRANGERS_OF_ADDRESS: usize = 256;
/// Longest path of a request; a longer one is answered 414.
pub const URI_BYTES: usize = 8 << 10;

/// How long a webhook waits in memory for a free call of its endpoint before it is deferred.
pub const GATE_WAIT: Duration = Duration::from_secs(1);
/// How long a message waits for the answer to another one to the same chat destination.
pub const LINE_WAIT: Duration = Duration::from_secs(1);
/// Open webhooks that one look for stalled sequences reads.
pub const SEQUENCES_LOOK: i64 = 10_000;
/// How often stalled sequences are looked for.
pub const SEQUENCES_EVERY: Duration = Duration::from_secs(10);
/// Longest time that an endpoint stays paused: then it is disabled, and its webhooks become dead letters.
pub const ENDPOINT_PAUSED: chrono::TimeDelta = chrono::TimeDelta::days(30);
/// An endpoint whose calls have only failed for so long is disabled.
pub const ENDPOINT_FAILING: chrono::TimeDelta = chrono::TimeDelta::days(5);
/// Messages checked for completion in one transaction: one may have ten thousand deliveries.
pub const COMPLETE_BATCH: i64 = 200;
/// Endpoints that a partner may delete in a day, so that creating and deleting does not evade their limit.
pub const ENDPOINTS_DELETED: i64 = 100;
/// The row of a deleted endpoint is removed after so long.
pub const ENDPOINT_FORGOTTEN: chrono::TimeDelta = chrono::TimeDelta::days(7);
/// How often messages with ended deliveries are checked for completion.
pub const COMPLETE_EVERY: Duration = Duration::from_millis(250);
/// How often the results of calls to endpoints are written.
pub const NOTE_ANSWERS_EVERY: Duration = Duration::from_secs(5);
/// Causes of alerts are looked for this often.
pub const WATCH_EVERY: Duration = Duration::from_secs(5);
/// Use of a provider's rate limit that causes an alert.
pub const LIMIT_ALERT_PERCENT: u64 = 80;
/// Smallest rate limit that causes an alert: of a smaller one, each request is a large part.
pub const LIMIT_ALERT_FROM: u32 = 10;
/// Characters stored of a provider's answer: enough to understand it, not a copy of it.
pub const PROVIDER_DETAIL_CHARS: usize = 1024;

/// How often processes read the states of providers and report the grants that they used.
pub const TRAFFIC_EVERY: Duration = Duration::from_secs(1);
/// Outages of a provider become one if less than this lies between them.
pub const OUTAGES_MERGE: chrono::TimeDelta = chrono::TimeDelta::seconds(2);
/// Outages read for the timeline of one message.
pub const TIMELINE_OUTAGES: i64 = 1_000;

/// Longest time of a webhook call, the body of the answer included, unless the call budget is less. Documented to
/// partners.
pub const WEBHOOK_BUDGET: Duration = Duration::from_secs(15);
/// Bytes stored of an endpoint's answer, for its owner to see.
pub const WEBHOOK_ANSWER_BYTES: usize = 1024;
/// Partners whose HTTP clients are kept; making one for a further partner takes less than 0.1 ms.
pub const WEBHOOK_CLIENTS: usize = 1024;

/// Body of a provider's callback: thousands of results.
pub const RECEIPT_BODY_BYTES: usize = 8 << 20;
/// Results in one body.
pub const RECEIPTS_IN_BODY: usize = 20_000;
/// Callback bodies of providers that are read and stored at the same time.
pub const RECEIPT_BODIES: usize = 16;
/// How long a further callback body waits for its turn.
pub const RECEIPT_TURN: Duration = Duration::from_secs(2);
/// Least time between two log lines about refused callbacks of one provider.
pub const REFUSED_CALLBACK_LOG_EVERY: chrono::TimeDelta = chrono::TimeDelta::minutes(1);
/// A provider's own key of a receipt; a longer one is stored as its digest.
pub const EVENT_KEY_BYTES: usize = 200;
/// Receipts written by one statement.
pub const RECEIPTS_WRITTEN: usize = 2_000;
/// How long before the last one read a receipt may be due that is committed only now.
pub const RECEIPT_SLACK: chrono::TimeDelta = chrono::TimeDelta::seconds(30);
/// Receipts applied in one transaction.
pub const RECEIPT_BATCH: i64 = 500;
/// How often waiting receipts are looked for; no loop is woken for them.
pub const RECEIPT_EVERY: Duration = Duration::from_millis(200);
/// Least and longest time after which a receipt is looked at again whose attempt a worker holds; within these, as long
/// as it has waited.
pub const RECEIPT_AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// The same for a receipt that matches no attempt: its delivery may be restored from a backup, or written late.
pub const RECEIPT_UNMATCHED_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
/// Receipts that match no attempt for so long cause an alert.
pub const UNMATCHED_AGED: chrono::TimeDelta = chrono::TimeDelta::minutes(10);
/// How often pausing a provider is tried while other processes change the same state.
pub const STATE_ROUNDS: usize = 5;
/// The outage of a provider that is not in the settings is over if it was not probed for so long after it could have
/// been.
pub const UNPROBED_FOR: chrono::TimeDelta = chrono::TimeDelta::minutes(10);
/// A receipt that has matched no attempt for so long is no longer looked at.
pub const UNMATCHED_LEFT: chrono::TimeDelta = chrono::TimeDelta::days(1);
/// When such a receipt would be looked at again: practically never.
pub const UNMATCHED_LEFT_FOR: chrono::TimeDelta = chrono::TimeDelta::days(36_500);
/// Receipts that match no attempt are counted up to this.
pub const UNMATCHED_COUNTED: i64 = 10_000;
/// How often overdue receipts are looked for.
pub const OVERDUE_EVERY: Duration = Duration::from_secs(1);
/// How often PENDING deliveries of a channel that is down are read from the beginning again.
pub const LEAVE_RESTART: chrono::TimeDelta = chrono::TimeDelta::seconds(30);
/// When a delivery with an overdue receipt is looked at again whose account is not in the settings of this process: it
/// may be added by then.
pub const OVERDUE_AGAIN: Duration = Duration::from_secs(600);
/// How often a provider's list of results is read.
pub const POLL_EVERY: Duration = Duration::from_secs(5);
/// How long the lease of its reader lasts beyond the call budget.
pub const POLL_MARGIN: Duration = Duration::from_secs(10);
/// How long the list is not read after a failure.
pub const POLL_REST: Duration = Duration::from_secs(30);
/// Receipts in the timeline of one message.
pub const TIMELINE_RECEIPTS: i64 = 1_000;

/// Fallbacks of one channel, one after the other.
pub const FALLBACKS: usize = 2;
/// Most attempts that a message may ask for before its fallback.
pub const AFTER_ATTEMPTS: i64 = 10;
/// Seconds after which a delivery without a receipt may fall back.
pub const NO_RECEIPT_SECONDS: std::ops::RangeInclusive<i64> = 10..=259_200;
