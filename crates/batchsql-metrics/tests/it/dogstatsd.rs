//! Owns the proof that a second exporter of the `metrics` family works: what DogStatsD receives over UDP.
//! Must not know the recorder of the other tests.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use batchsql_core::{BatchSql, ColumnType, ErrorClass, PipelineConfig, Schema};
use batchsql_metrics::{Metric, MetricKind, Metrics, TestResult};
use batchsql_testkit::{ScriptedSink, Step};
use metrics_exporter_dogstatsd::DogStatsDBuilder;

const PATIENCE: Duration = Duration::from_secs(60);

/// What was received, combined as the agent does it: counters by their differences, gauges by their last value,
/// histograms by their observations.
#[derive(Default)]
struct Agent(BTreeMap<(String, BTreeMap<String, String>), Series>);

#[derive(Debug, Default)]
struct Series {
    kind: String,
    values: Vec<f64>,
}

impl Agent {
    fn take(&mut self, datagram: &str) {
        for line in datagram.lines() {
            let mut parts = line.split('|');
            let (name, values) = parts.next().unwrap().split_once(':').unwrap();
            let kind = parts.next().unwrap().to_owned();
            let labels = parts.find_map(|part| part.strip_prefix('#')).unwrap_or_default();
            let labels = labels.split(',').filter_map(|label| label.split_once(':'));
            let labels = labels.map(|(label, value)| (label.to_owned(), value.to_owned())).collect();
            let series = self.0.entry((name.to_owned(), labels)).or_default();
            series.values.extend(values.split(':').map(|value| value.parse::<f64>().unwrap()));
            series.kind = kind;
        }
    }

    fn values(&self, metric: Metric, wanted: &[(&str, &str)]) -> Vec<f64> {
        let fits = |labels: &BTreeMap<String, String>| {
            wanted.iter().all(|(label, value)| labels.get(*label).is_some_and(|have| have == value))
        };
        let series = self.0.iter().filter(|((name, labels), _)| name == metric.name() && fits(labels));
        series.flat_map(|(_, series)| series.values.iter().copied()).collect()
    }

    fn sum(&self, metric: Metric, wanted: &[(&str, &str)]) -> f64 {
        self.values(metric, wanted).iter().sum()
    }
}

#[tokio::test]
async fn dogstatsd_gets_the_same_numbers_under_the_same_names() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let recorder = DogStatsDBuilder::default()
        .with_remote_address(socket.local_addr().unwrap().to_string())
        .unwrap()
        .with_flush_interval(Duration::from_millis(50))
        .with_telemetry(false)
        .with_histogram_sampling(false)
        .build()
        .unwrap();
    let metrics = Metrics::with_recorder(Arc::new(recorder));
    metrics.set_current_test_case("second_exporter");
    let sink = ScriptedSink::new();
    sink.script([Step::Fail(ErrorClass::Transient)]);
    let config = PipelineConfig::default().flush_size(10).buffer_size(20);
    let db = BatchSql::builder(sink).config(config).metrics_reporter(metrics.reporter("scripted")).start().unwrap();
    let events = Schema::builder("events").column("id", ColumnType::I64).build().unwrap();
    for id in 0..95_i64 {
        db.submit(&events.row().set("id", id).unwrap().finish().unwrap()).await.unwrap();
    }
    assert!(db.close(PATIENCE).await.is_complete());
    let result = TestResult { data_integrity_rate: 99.5, success: true, ..Default::default() };
    metrics.record_test_result("scripted", "second_exporter", &result);

    let mut agent = Agent::default();
    let case = ("test_case", "second_exporter");
    let begin = Instant::now();
    let mut buffer = vec![0; 64 << 10];
    let has_all = |agent: &Agent| {
        agent.sum(Metric::RecordsProcessed, &[case]) >= 95.0
            && agent.sum(Metric::RecordsReceived, &[]) >= 95.0
            && agent.sum(Metric::RecordsOutcome, &[("outcome", "written")]) >= 95.0
            && agent.sum(Metric::BatchSize, &[case]) >= 95.0
            && agent.sum(Metric::BatchExecution, &[case]) >= 11.0
            && agent.sum(Metric::Errors, &[case]) >= 1.0
            && agent.values(Metric::BatchExecutionDuration, &[case, ("status", "success")]).len() >= 10
            && !agent.values(Metric::TestDataIntegrityRate, &[]).is_empty()
    };
    // Nothing may come twice, so the test listens for a while after everything was received.
    let mut complete: Option<Instant> = None;
    while complete.is_none_or(|since| since.elapsed() < Duration::from_millis(500)) {
        assert!(begin.elapsed() < PATIENCE, "not everything was received: {:?}", agent.0);
        complete = complete.or_else(|| has_all(&agent).then(Instant::now));
        if let Ok(length) = socket.recv(&mut buffer) {
            agent.take(std::str::from_utf8(&buffer[..length]).unwrap());
        }
    }

    let database = ("database", "scripted");
    assert_eq!(agent.sum(Metric::RecordsProcessed, &[database, ("table", "events"), case]), 95.0);
    assert_eq!(agent.sum(Metric::RecordsReceived, &[database, ("table", "events")]), 95.0);
    assert_eq!(agent.sum(Metric::RecordsOutcome, &[database, ("outcome", "written")]), 95.0);
    assert_eq!(agent.sum(Metric::BatchExecution, &[case, ("status", "success")]), 10.0);
    assert_eq!(agent.sum(Metric::BatchExecution, &[case, ("status", "failure")]), 1.0);
    assert_eq!(agent.sum(Metric::Errors, &[case, ("error_type", "transient")]), 1.0);
    assert_eq!(agent.values(Metric::BatchExecutionDuration, &[case, ("status", "success")]).len(), 10);
    assert_eq!(agent.values(Metric::TestDataIntegrityRate, &[database, case]).last(), Some(&99.5));
    for ((name, labels), series) in &agent.0 {
        let metric = Metric::ALL.iter().find(|metric| metric.name() == name);
        let metric = metric.unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        let unknown = labels.keys().find(|label| !metric.labels().contains(&label.as_str()));
        assert_eq!(unknown, None, "{name}");
        let kinds: &[&str] = match metric.kind() {
            MetricKind::Counter => &["c"],
            MetricKind::Gauge => &["g"],
            MetricKind::Histogram => &["d", "h"],
            kind => panic!("{name} is a {kind:?}, which this test does not handle"),
        };
        assert!(kinds.contains(&series.kind.as_str()), "{name}: {series:?}");
    }
}
