//! Messages of other publishers, with a format of the test: each line is the number of a row.

use async_nats::jetstream::Context;
use batchsql_core::{DynRow, Schema, StopReason};
use batchsql_nats::{MessageFormat, MessageItems, OtherMessage, StreamOptions, TakeItem, WorkerOptions};

use crate::outages::lock;
use crate::support::{LIMIT, Target, context, lines, plain, publish, row, stream, until};

/// A line of digits is a row, any other is none.
#[derive(Debug, Clone)]
struct Numbers {
    schema: Schema,
    /// Messages with more lines are foreign.
    most: usize,
    others: Others,
}

/// What becomes of lines that are no digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    None,
    /// `{"7":0}` is a row too.
    Rows,
    /// A panic.
    Panic,
}

struct NumberLines {
    schema: Schema,
    lines: Vec<String>,
    next: usize,
    others: Others,
}

impl MessageFormat for Numbers {
    fn open(&self, message: &OtherMessage, from: u32) -> Result<Box<dyn MessageItems>, String> {
        assert_eq!(message.table.to_string(), "plain");
        let text = std::str::from_utf8(&message.payload).map_err(|error| error.to_string())?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() > self.most {
            return Err("it has too many lines".to_owned());
        }
        Ok(Box::new(NumberLines { schema: self.schema.clone(), lines, next: from as usize, others: self.others }))
    }
}

impl MessageItems for NumberLines {
    fn last(&self) -> Option<u32> {
        self.lines.len().checked_sub(1).map(|last| last as u32)
    }

    fn next(&mut self, take: &mut TakeItem<'_>) -> bool {
        let Some(line) = self.lines.get(self.next) else { return false };
        let number = match self.others {
            Others::Rows => line.trim_start_matches("{\"").trim_end_matches("\":0}"),
            _ => line,
        };
        let made: Result<DynRow, String> = match (number.parse(), self.others) {
            (Ok(id), _) => Ok(row(&self.schema, id, "other")),
            (Err(_), Others::Panic) => panic!("a format has a defect"),
            (Err(_), _) => Err("it is no number".to_owned()),
        };
        take(self.next as u32, line.as_bytes(), made);
        self.next += 1;
        true
    }
}

fn options(target: &Target, stream: &StreamOptions, is_exact: bool, most: usize) -> WorkerOptions {
    with(target, stream, is_exact, Numbers { schema: plain("plain"), most, others: Others::None })
}

fn with(target: &Target, stream: &StreamOptions, is_exact: bool, format: Numbers) -> WorkerOptions {
    let options = target.options(stream).format(format);
    if is_exact { options.exactly_once() } else { options }
}

async fn send(context: &Context, stream: &StreamOptions, payload: String) {
    let subject = format!("{}.plain.0", stream.name());
    context.publish(subject, payload.into()).await.unwrap().await.unwrap();
}

/// Lines with these numbers.
fn numbers(ids: std::ops::Range<i64>) -> String {
    ids.map(|id| format!("{id}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn items_are_rows_beside_blocks_and_the_others_are_kept_aside() {
    for is_exact in [false, true] {
        let (context, stream, target) = (context().await, stream(1), Target::new().await);
        stream.create(&context).await.unwrap();
        publish(&context, &stream, &plain("plain"), 0..10).await;
        // Several parts: each has at most 8,192 items.
        send(&context, &stream, numbers(10..20_000)).await;
        send(&context, &stream, format!("one\n{}two\nthree\n{}", numbers(20_000..20_003), numbers(20_003..20_005)))
            .await;
        send(&context, &stream, String::new()).await;
        send(&context, &stream, "x\n".repeat(3_000)).await;
        let sequence = crate::support::last(&context, &stream).await;
        publish(&context, &stream, &plain("plain"), 20_005..20_010).await;
        let worker = target.worker(&context, options(&target, &stream, is_exact, usize::MAX)).await;
        let all: Vec<i64> = (0..20_010).collect();
        target.has("plain", &all).await;
        let stats = worker.stats();
        assert_eq!((stats.counts.dead_letters, stats.counts.read), (3_003, 23_013), "{is_exact}");
        assert!(stats.stopped.is_empty());
        until("all messages have ended", async || worker.stats().unsettled() == 0).await;
        worker.close(LIMIT).await;

        let letters = lines(&target.path("dead-letters.ndjson.foreign"));
        assert_eq!(letters.len(), 3 + 1_000, "letters of single items are bounded");
        let ends = |letter: &str, message: u64, line: u64| {
            assert!(letter.contains(&format!(":{message}:{line}\"")), "{letter}");
            assert!(letter.contains(&format!("\"line\":{line},")) && letter.contains("it is no number"), "{letter}");
        };
        ends(&letters[0], sequence - 2, 1);
        ends(&letters[1], sequence - 2, 5);
        ends(&letters[2], sequence - 2, 6);
        ends(&letters[3], sequence, 1);
        ends(letters.last().unwrap(), sequence, 1_000);
        assert!(letters[1].contains("\"payload\":\"dHdv\""), "only the item: {}", letters[1]);
        let rest = letters.last().unwrap();
        assert!(rest.contains("behind it") && rest.len() > 4 * 2 * 3_000 / 3, "all of the message");
        let partly = letters.iter().filter(|letter| letter.contains("\"partly_written\":true"));
        assert_eq!(partly.collect::<Vec<_>>(), [rest], "its other items have ended");

        // Nothing comes again.
        let worker = target.worker(&context, options(&target, &stream, is_exact, usize::MAX)).await;
        send(&context, &stream, numbers(20_010..20_012)).await;
        target.has("plain", &(0..20_012).collect::<Vec<_>>()).await;
        worker.close(LIMIT).await;
        assert_eq!(lines(&target.path("dead-letters.ndjson.foreign")).len(), 3 + 1_000);
    }
}

/// A position in the middle of a message, as a worker leaves it that was killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_on_behind_the_position() {
    let (context, stream, target) = (context().await, stream(1), Target::new().await);
    stream.create(&context).await.unwrap();
    send(&context, &stream, format!("{}bad\n{}", numbers(0..5), numbers(5..9))).await;
    let worker = target.worker(&context, options(&target, &stream, true, usize::MAX)).await;
    target.has("plain", &(0..9).collect::<Vec<_>>()).await;
    worker.close(LIMIT).await;
    // Behind row 3: one row, the bad item, and four rows.
    target.execute("UPDATE batchsql_positions SET sequence = sequence - 6 WHERE sequence > 0").await;
    let worker = target.worker(&context, options(&target, &stream, true, usize::MAX)).await;
    target.has("plain", &[0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8]).await;
    worker.close(LIMIT).await;
    let letters = lines(&target.path("dead-letters.ndjson.foreign"));
    assert_eq!(letters.len(), 2, "with the same id: {letters:?}");
    assert_eq!(letters[0], letters[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_settings_change_nothing_of_what_has_ended() {
    for is_exact in [false, true] {
        let (context, stream, target) = (context().await, stream(1), Target::new().await);
        stream.create(&context).await.unwrap();
        send(&context, &stream, numbers(0..3)).await;
        send(&context, &stream, numbers(100..110)).await;
        let strict = target.worker(&context, options(&target, &stream, is_exact, 5)).await;
        target.has("plain", &[0, 1, 2]).await;
        let path = target.path("dead-letters.ndjson.foreign");
        until("it is kept", async || lines(&path).len() == 1).await;
        until("it has ended", async || strict.stats().unsettled() == 0).await;
        strict.close(LIMIT).await;
        // It is the message of the position, and would be rows now.
        let worker = target.worker(&context, options(&target, &stream, is_exact, usize::MAX)).await;
        send(&context, &stream, numbers(3..6)).await;
        target.has("plain", &[0, 1, 2, 3, 4, 5]).await;
        worker.close(LIMIT).await;
        assert_eq!(lines(&path).len(), 1);
    }
    // A message that was begun, and is foreign now: its rows stay written, and the letter says so.
    let (context, stream, target) = (context().await, stream(1), Target::new().await);
    stream.create(&context).await.unwrap();
    send(&context, &stream, numbers(0..9)).await;
    let worker = target.worker(&context, options(&target, &stream, true, usize::MAX)).await;
    target.has("plain", &(0..9).collect::<Vec<_>>()).await;
    worker.close(LIMIT).await;
    target.execute("UPDATE batchsql_positions SET sequence = sequence - 6 WHERE sequence > 0").await;
    let strict = target.worker(&context, options(&target, &stream, true, 5)).await;
    send(&context, &stream, numbers(9..12)).await;
    target.has("plain", &(0..12).collect::<Vec<_>>()).await;
    strict.close(LIMIT).await;
    let letters = lines(&target.path("dead-letters.ndjson.foreign"));
    assert!(letters.len() == 1 && letters[0].contains("its first 3 items stays written"), "{letters:?}");
    assert!(letters[0].contains("\"partly_written\":true"), "{letters:?}");
}

/// Without a place for what is no row, nothing goes on.
#[tokio::test(flavor = "multi_thread")]
async fn items_wait_for_the_file_of_those_that_are_no_rows() {
    let (context, stream, target) = (context().await, stream(1), Target::new().await);
    stream.create(&context).await.unwrap();
    let path = target.path("dead-letters.ndjson.foreign");
    // A folder cannot be appended to.
    std::fs::create_dir(&path).unwrap();
    send(&context, &stream, format!("{}bad\n{}", numbers(0..3), numbers(3..5))).await;
    let worker = target.worker(&context, options(&target, &stream, false, usize::MAX)).await;
    target.has("plain", &[0, 1, 2]).await;
    std::fs::remove_dir(&path).unwrap();
    target.has("plain", &[0, 1, 2, 3, 4]).await;
    worker.close(LIMIT).await;
    assert_eq!(lines(&path).len(), 1);
}

/// Its first rows are written and settled, and the others are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_not_acknowledged_before_its_last_item() {
    let (context, stream, target) = (context().await, stream(1), Target::new().await);
    stream.create(&context).await.unwrap();
    let path = target.path("dead-letters.ndjson.foreign");
    std::fs::create_dir(&path).unwrap();
    send(&context, &stream, format!("{}bad\n{}", numbers(0..3), numbers(3..5))).await;
    let worker = target.worker(&context, options(&target, &stream, false, usize::MAX)).await;
    until("the first rows are settled", async || worker.stats().counts.written == 3).await;
    worker.close(LIMIT).await;
    std::fs::remove_dir(&path).unwrap();
    let worker = target.worker(&context, options(&target, &stream, false, usize::MAX)).await;
    target.has("plain", &[0, 0, 1, 1, 2, 2, 3, 4]).await;
    worker.close(LIMIT).await;
}

/// As when a publisher has other names of fields than the worker: they are not set aside one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_mapping_stops_the_partition() {
    for is_exact in [false, true] {
        let (context, stream, target) = (context().await, stream(1), Target::new().await);
        stream.create(&context).await.unwrap();
        let objects = |ids: std::ops::Range<i64>| ids.map(|id| format!("{{\"{id}\":0}}\n")).collect::<String>();
        send(&context, &stream, format!("{}{}", numbers(0..3), objects(3..203))).await;
        send(&context, &stream, format!("PING\n{}", objects(203..400))).await;
        let sequence = crate::support::last(&context, &stream).await;
        send(&context, &stream, numbers(400..410)).await;
        let format = |others| Numbers { schema: plain("plain"), most: usize::MAX, others };
        let worker = target.worker(&context, with(&target, &stream, is_exact, format(Others::None))).await;
        until("it has stopped", async || !worker.stats().stopped.is_empty()).await;
        let stopped = worker.stats().stopped.remove(0);
        assert_eq!(stopped.kind, Some(StopReason::Schema), "{stopped}");
        // Behind 200 in the message before, and a line that is no object.
        let place = format!("the next one is item 58 of message {sequence} of");
        assert!(stopped.reason.contains(&place) && stopped.reason.contains("it is no number"), "{stopped}");
        target.has("plain", &[0, 1, 2]).await;
        let path = target.path("dead-letters.ndjson.foreign");
        assert_eq!(lines(&path).len(), 256 + 1, "{is_exact}");
        assert_eq!(worker.stats().counts.dead_letters, 257);
        let end = ((sequence << 20) + 56) as i64;
        until("those before it have ended, and no others", async || {
            let positions = worker.pipeline().positions(stream.name()).await.unwrap_or_default();
            !is_exact || positions.iter().any(|of| of.position.sequence == end)
        })
        .await;
        worker.close(LIMIT).await;

        // With the right mapping the others are rows; at least once, all items of the message come again.
        let worker = target.worker(&context, with(&target, &stream, is_exact, format(Others::Rows))).await;
        let first = if is_exact { 259 } else { 203 };
        target.has("plain", &(0..3).chain(first..410).collect::<Vec<_>>()).await;
        assert!(worker.stats().stopped.is_empty());
        worker.close(LIMIT).await;
    }
}

/// The outcomes of its first rows come after the message was lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_format_has_panicked_is_not_acknowledged() {
    let (context, stream, target) = (context().await, stream(1), Target::new().await);
    stream.create(&context).await.unwrap();
    send(&context, &stream, numbers(0..1)).await;
    let format = |others| Numbers { schema: plain("plain"), most: usize::MAX, others };
    let worker = target.worker(&context, with(&target, &stream, false, format(Others::Panic))).await;
    target.has("plain", &[0]).await;
    let locked = lock(&target);
    // Two parts.
    send(&context, &stream, format!("{}bad\n", numbers(1..10_000))).await;
    until("it has stopped", async || {
        worker.stats().stopped.first().is_some_and(|of| of.kind == Some(StopReason::Defect))
    })
    .await;
    drop(locked);
    until("the first part is written", async || worker.stats().counts.written == 1 + 8_192).await;
    worker.close(LIMIT).await;
    let worker = target.worker(&context, with(&target, &stream, false, format(Others::None))).await;
    let mut all: Vec<i64> = (1..8_193).chain(0..10_000).collect();
    all.sort_unstable();
    target.has("plain", &all).await;
    worker.close(LIMIT).await;
}
