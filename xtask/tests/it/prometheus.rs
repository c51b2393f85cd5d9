//! The verb `server prometheus`: it scrapes its targets at its interval, with the files of this repository.

use std::process::Stdio;

use serde_json::Value;

use crate::{
    exporter::{exporter, get, query},
    place::{Place, Running, text, within_seconds},
};

#[test]
fn it_scrapes_what_it_is_told() {
    let (place, suite, app) = (Place::new(), exporter("fake_suite"), exporter("fake_app"));
    let (target, other) = (format!("target={suite}"), format!("app={app}"));
    let server = Running::server(&mut place.server(&["prometheus", "--", &target, &other, "interval=1s"]));
    for (metric, job) in [("fake_suite", "batchsql-integration-test"), ("fake_app", "batchsql-app")] {
        within_seconds("it is scraped", || !query(&server.dsn, metric).is_empty());
        assert_eq!(query(&server.dsn, metric)[0]["metric"]["job"], job);
    }
    within_seconds("it scrapes itself", || !query(&server.dsn, "prometheus_build_info").is_empty());
    let targets: Value = serde_json::from_str(&get(&format!("{}/api/v1/targets", server.dsn))).unwrap();
    let targets = targets["data"]["activeTargets"].as_array().unwrap();
    assert_eq!(targets.len(), 3);
    for target in targets {
        assert_eq!(target["scrapeInterval"], "1s", "{target}");
    }
    assert_eq!(server.end_by("-TERM").code(), Some(143));
    assert!(place.is_empty(), "{:?}", place.entries());
}

#[test]
fn what_it_does_not_know_is_refused() {
    let place = Place::new();
    let output = place.server(&["prometheus", "--", "tagret=h:1"]).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success());
    assert!(text(&output).contains("use target=HOST:PORT"), "{}", text(&output));
    assert!(place.is_empty(), "{:?}", place.entries());
}
