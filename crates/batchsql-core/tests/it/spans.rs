//! Owns the checks of the spans of batches and attempts, as a subscriber collects them.
//! Must not know metrics.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use batchsql_core::{BatchSql, ColumnType, Conflict, ErrorClass, Schema, ValueRef};
use batchsql_testkit::{ScriptedSink, Step};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Instrument, Level, Subscriber, info_span};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::support::{config, pipeline, plain, row, table};

/// A span as it was recorded.
#[derive(Debug, Clone, Default)]
struct Seen {
    name: &'static str,
    parent: Option<usize>,
    fields: BTreeMap<&'static str, String>,
    follows: Vec<usize>,
    is_closed: bool,
}

impl Seen {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name(), value.to_owned());
    }
}

/// Collects every span, in the order of their begin.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

/// The place of a span in the list.
#[derive(Clone, Copy)]
struct Place(usize);

impl Spans {
    /// Collects the spans of this thread from this level on.
    fn collect(level: Level) -> (Self, DefaultGuard) {
        let spans = Self::default();
        let layer = spans.clone().with_filter(LevelFilter::from_level(level));
        (spans, batchsql_testserver::subscribe(tracing_subscriber::registry().with(layer)))
    }

    fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    fn named(&self, name: &str) -> Vec<Seen> {
        self.all().into_iter().filter(|span| span.name == name).collect()
    }

    /// The names of the spans that a span is linked to, sorted.
    fn links(&self, span: &Seen) -> Vec<&'static str> {
        let all = self.all();
        let mut names: Vec<_> = span.follows.iter().map(|place| all[*place].name).collect();
        names.sort_unstable();
        names
    }

    fn change<S: Subscriber + for<'a> LookupSpan<'a>>(
        &self,
        id: &Id,
        context: &Context<'_, S>,
        change: impl FnOnce(&mut Seen),
    ) {
        if let Some(place) = place(id, context) {
            change(&mut self.0.lock().unwrap()[place]);
        }
    }
}

fn place<S: Subscriber + for<'a> LookupSpan<'a>>(id: &Id, context: &Context<'_, S>) -> Option<usize> {
    context.span(id)?.extensions().get().map(|Place(place)| *place)
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let parent = span.parent().and_then(|parent| parent.extensions().get().map(|Place(place)| *place));
        let mut seen = Seen { name: span.name(), parent, ..Seen::default() };
        attributes.record(&mut seen);
        let mut all = self.0.lock().unwrap();
        span.extensions_mut().insert(Place(all.len()));
        all.push(seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.change(id, &context, |seen| values.record(seen));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        if let Some(follows) = place(follows, &context) {
            self.change(id, &context, |seen| seen.follows.push(follows));
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.change(&id, &context, |seen| seen.is_closed = true);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_has_a_span_and_each_attempt_a_child_of_it() {
    let (spans, _guard) = Spans::collect(Level::DEBUG);
    let (db, _sink) = pipeline(config());
    // It is nobody's child, whoever starts the pipeline or submits.
    let caller = info_span!("caller");
    async {
        db.submit_all((0..3).map(|id| row(&plain(), id))).await.unwrap();
        db.flush().await.unwrap();
    }
    .instrument(caller)
    .await;
    let all = spans.all();
    let batch = all.iter().position(|span| span.name == "batchsql.batch").unwrap();
    let expected = [
        ("attempt", "1"),
        ("database", "scripted"),
        ("result", "done"),
        ("rows", "3"),
        ("table", "t"),
        ("written", "3"),
    ];
    assert_eq!(all[batch].fields.iter().map(|(name, value)| (*name, &**value)).collect::<Vec<_>>(), expected);
    assert!(all[batch].parent.is_none() && all[batch].is_closed && all[batch].follows.is_empty(), "{all:?}");
    let attempts = spans.named("batchsql.attempt");
    assert_eq!(attempts.len(), 1);
    assert_eq!(
        (attempts[0].parent, attempts[0].field("rows"), attempts[0].field("attempt")),
        (Some(batch), Some("3"), Some("1"))
    );
    assert!(attempts[0].field("error").is_none() && attempts[0].is_closed, "{attempts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_tried_again_has_another_span() {
    let (spans, _guard) = Spans::collect(Level::DEBUG);
    let (db, sink) = pipeline(config());
    sink.script([Step::Fail(ErrorClass::Transient)]);
    db.submit(&row(&plain(), 1)).await.unwrap();
    db.flush().await.unwrap();
    let told = |span: &Seen| ["attempt", "result", "error", "written"].map(|name| span.field(name).map(str::to_owned));
    let batches: Vec<_> = spans.named("batchsql.batch").iter().map(told).collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        batches,
        [[some("1"), some("backs_off"), some("transient"), None], [some("2"), some("done"), None, some("1")],]
    );
    let errors: Vec<_> = spans.named("batchsql.attempt").iter().map(|span| span.field("error").is_some()).collect();
    assert_eq!(errors, [true, false]);
}

#[tokio::test(start_paused = true)]
async fn no_field_has_the_value_of_a_row() {
    let (spans, _guard) = Spans::collect(Level::TRACE);
    let (db, sink) = pipeline(config());
    sink.poison(|row| row.get("id") == Some(ValueRef::I64(5_005)));
    let schema = table("orders", Conflict::update(["id"]));
    for id in 5_000..5_010_i64 {
        let row = schema.row().set("id", id).unwrap().set("note", "s3cret").unwrap().finish().unwrap();
        drop(db.submit_tracked(&row).await.unwrap());
    }
    db.flush().await.unwrap();
    let all = spans.all();
    let batch = &spans.named("batchsql.batch")[0];
    assert_eq!((batch.field("rejected"), batch.field("written")), (Some("1"), Some("9")));
    let attempts = spans.named("batchsql.attempt");
    assert!(attempts.len() > 2 && attempts.iter().any(|span| span.field("error") == Some("row")), "{attempts:?}");
    for value in all.iter().flat_map(|span| span.fields.values()) {
        assert!(!value.contains("s3cret") && !value.contains("500"), "{value}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_linked_to_the_spans_that_submitted_tracked_rows() {
    let (spans, _guard) = Spans::collect(Level::DEBUG);
    let (db, _sink) = pipeline(config());
    let [first, second, untracked] = [info_span!("first"), info_span!("second"), info_span!("untracked")];
    let mut receipts = Vec::new();
    for (id, span) in [(1, &first), (2, &second), (3, &first)] {
        receipts.push(db.submit_tracked(&row(&plain(), id)).instrument(span.clone()).await.unwrap());
    }
    db.submit(&row(&plain(), 4)).instrument(untracked).await.unwrap();
    db.flush().await.unwrap();
    let batches = spans.named("batchsql.batch");
    assert_eq!(batches.len(), 1);
    assert_eq!(spans.links(&batches[0]), ["first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn the_links_of_a_batch_are_bounded_also_when_it_grows() {
    let (spans, _guard) = Spans::collect(Level::DEBUG);
    let sink = ScriptedSink::new();
    sink.set_max_concurrency(1);
    let config = config().max_batch_rows(100);
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    // The first batch holds the connection, and the others are merged meanwhile.
    sink.script([Step::Hang]);
    let schema = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
    let mut open = Vec::new();
    for id in 0..50_i64 {
        let span = info_span!("request");
        let row = schema.row().set("id", id).unwrap().finish().unwrap();
        drop(db.submit_tracked(&row).instrument(span.clone()).await.unwrap());
        open.push(span);
        if id == 9 {
            crate::support::settle().await;
        }
    }
    sink.release(1);
    db.flush().await.unwrap();
    let links: Vec<_> = spans
        .named("batchsql.batch")
        .iter()
        .map(|span| (span.field("rows").map(str::to_owned), span.follows.len()))
        .collect();
    assert_eq!(links, [(Some("10".to_owned()), 10), (Some("40".to_owned()), 32)]);
}

#[tokio::test(start_paused = true)]
async fn a_span_that_has_ended_is_not_linked_and_nothing_fails() {
    let (spans, _guard) = Spans::collect(Level::DEBUG);
    let (db, _sink) = pipeline(config());
    drop(db.submit_tracked(&row(&plain(), 1)).instrument(info_span!("short")).await.unwrap());
    assert!(spans.named("short")[0].is_closed);
    assert_eq!(db.flush().await.unwrap().written(), 1);
    assert!(spans.named("batchsql.batch")[0].follows.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_of_another_level_gets_no_span() {
    let (spans, _guard) = Spans::collect(Level::INFO);
    let (db, _sink) = pipeline(config());
    drop(db.submit_tracked(&row(&plain(), 1)).instrument(info_span!("caller")).await.unwrap());
    assert_eq!(db.flush().await.unwrap().written(), 1);
    assert_eq!(spans.all().iter().map(|span| span.name).collect::<Vec<_>>(), ["caller"]);
}
